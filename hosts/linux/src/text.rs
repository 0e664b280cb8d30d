//! Tokens to text as it may be shown: whole characters, and nothing of a stop string.

use pleach::Error;
use pleach::sample::StopStrings;
use pleach::tokenizer::{Decoder, SpecialTokens, Tokenizer};

/// A decoder and stop strings behind it.
///
/// All pieces together, with [`finish`](Self::finish)'s, are the decoded text up to the first stop string.
///
/// ```
/// use pleach::tokenizer::{SpecialTokens, Tokenizer, example};
/// use pleach_linux::TextStream;
/// let tokenizer = Tokenizer::parse(&example::SECTION)?;
/// let mut stream = TextStream::new(tokenizer, SpecialTokens::Skip, &["hellohe"])?;
/// assert_eq!(stream.push(261).text, ""); // "hello" may begin the stop string
/// assert_eq!(stream.push(2 + b' ' as u32).text, "hello ");
/// assert_eq!(stream.push(261).text, "");
/// let last = stream.push(261);
/// assert_eq!((last.text, last.stopped), ("", true));
/// assert_eq!(stream.finish(), "");
/// # Ok::<(), pleach::Error>(())
/// ```
pub struct TextStream<'b, 's> {
    decoder: Decoder<'b>,
    stops: StopStrings<'s>,
    /// What a token has completed, before and after the stop strings.
    decoded: String,
    shown: String,
}

/// What a token adds to the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'p> {
    /// To be shown now; perhaps empty.
    pub text: &'p str,
    /// A stop string was met: the text has ended.
    pub stopped: bool,
}

impl<'b, 's> TextStream<'b, 's> {
    /// A stream at the start of a text.
    ///
    /// Errors: as [`StopStrings::new`].
    pub fn new(
        tokenizer: Tokenizer<'b>,
        special: SpecialTokens,
        stop_strings: &[&'s str],
    ) -> Result<Self, Error> {
        Ok(Self {
            decoder: Decoder::new(tokenizer, special),
            stops: StopStrings::new(stop_strings)?,
            decoded: String::new(),
            shown: String::new(),
        })
    }

    /// Takes a token.
    pub fn push(&mut self, token: u32) -> Piece<'_> {
        self.decoded.clear();
        self.decoded.extend(self.decoder.push(token));
        self.shown.clear();
        let stopped = self.take();
        Piece {
            text: &self.shown,
            stopped,
        }
    }

    /// Ends the text and gives what was held back: the start of a stop string that did not come, U+FFFD for a
    /// character that was not whole. The stream is at the start of a text again.
    pub fn finish(&mut self) -> &str {
        self.decoded.clear();
        self.decoded.extend(self.decoder.finish());
        self.shown.clear();
        self.take();
        let rest = self.stops.finish();
        self.shown.push_str(&String::from_utf8_lossy(rest));
        &self.shown
    }

    fn take(&mut self) -> bool {
        let streamed = self.stops.push(self.decoded.as_bytes());
        for part in [streamed.held, streamed.text] {
            // Whole characters went in, so whole characters come out.
            self.shown.push_str(&String::from_utf8_lossy(part));
        }
        streamed.stopped
    }
}
