//! The lines that the intent firmware prints, read back.

/// One sentence's lines.
pub(crate) struct Answer {
    pub(crate) sentence: String,
    pub(crate) prompt: Vec<u32>,
    pub(crate) answer: Vec<u32>,
    pub(crate) text: String,
    pub(crate) hash: String,
}

/// All answers, in order.
pub(crate) fn answers(lines: &[String]) -> Result<Vec<Answer>, String> {
    let mut all = vec![];
    let mut rest = lines.iter().map(String::as_str);
    while let Some(line) = rest.next() {
        let Some(sentence) = line.strip_prefix("> ") else {
            continue;
        };
        let mut field = |name: &str| {
            let line = rest
                .next()
                .ok_or(format!("the log ends before {name} of {sentence:?}"))?;
            let value = line
                .strip_prefix(name)
                .ok_or(format!("{name} expected, found {line:?}"))?;
            Ok::<&str, String>(value.trim_start())
        };
        let (prompt, answer) = (tokens(field("prompt")?)?, tokens(field("answer")?)?);
        let text = field("call")?.to_owned();
        field("experts")?;
        let (sentence, hash) = (sentence.to_owned(), field("hash")?.to_owned());
        all.push(Answer {
            sentence,
            prompt,
            answer,
            text,
            hash,
        });
    }
    Ok(all)
}

fn tokens(list: &str) -> Result<Vec<u32>, String> {
    let inner = list.strip_prefix('[').and_then(|l| l.strip_suffix(']'));
    let numbers = inner
        .ok_or(format!("not a list of tokens: {list}"))?
        .split(", ");
    numbers
        .map(|n| n.parse().map_err(|_| format!("not a token: {n:?}")))
        .collect()
}

/// The lines that do not depend on compiler or log: all but counts and sizes of this build.
pub(crate) fn stable(lines: &[String]) -> String {
    let varies = |l: &&String| l.starts_with("instructions:") || l.starts_with("memory:");
    lines
        .iter()
        .filter(|l| !varies(l))
        .map(|l| format!("{l}\n"))
        .collect()
}

/// The numbers after `name` in all lines that start with `line`, as in `memory: data 4 total 90000`.
pub(crate) fn numbers(lines: &[String], line: &str, name: &str) -> Result<Vec<u64>, String> {
    let number = |l: &String| {
        let mut words = l.split(' ').skip_while(|w| *w != name);
        words.nth(1)?.parse().ok()
    };
    let found: Option<Vec<u64>> = lines
        .iter()
        .filter(|l| l.starts_with(line))
        .map(number)
        .collect();
    found
        .filter(|f| !f.is_empty())
        .ok_or(format!("the firmware did not print `{line} .. {name} N`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn reads_a_log() {
        let log = lines(
            "model intent\n> licht an\nprompt [1, 5, 9]\nanswer [7, 2]\ncall turnon name=licht\n\
             experts de 900 en 100\nhash 0123456789abcdef\n\
             instructions: prefill 1 and decode 7 a token\n\
             instructions: prefill 3 and decode 8 a token\nmemory: data 4 total 90",
        );
        let a = answers(&log).unwrap();
        assert_eq!(a.len(), 1);
        assert_eq!(
            (&a[0].prompt[..], &a[0].answer[..]),
            (&[1, 5, 9][..], &[7, 2][..])
        );
        assert_eq!(
            (a[0].text.as_str(), a[0].hash.as_str()),
            ("turnon name=licht", "0123456789abcdef")
        );
        assert_eq!(numbers(&log, "memory:", "total"), Ok(vec![90]));
        assert_eq!(numbers(&log, "instructions:", "decode"), Ok(vec![7, 8]));
        assert!(numbers(&log, "memory:", "stack").is_err());
        assert!(!stable(&log).contains("memory"));
    }

    #[test]
    fn a_cut_log_is_an_error() {
        assert!(answers(&lines("> licht an\nprompt [1]")).is_err());
        assert!(answers(&lines("> licht an\nanswer [1]")).is_err());
        assert!(tokens("[1, x]").is_err());
    }
}
