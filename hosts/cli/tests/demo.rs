//! The demo, piped: one line a sentence, reproducible, and it goes on after a bad line.

mod common;

use common::{pleach, pleach_with};

#[test]
fn a_line_a_sentence_with_five_fields() {
    let input =
        "Mach das Licht im Flur an!\nWie spät ist es?\nTurn on the lights in the kitchen.\n";
    let first = pleach_with(input.as_bytes(), &[]).ok();
    let rows: Vec<Vec<&str>> = first.lines().map(|l| l.split('\t').collect()).collect();
    let heads: Vec<&[&str]> = rows.iter().map(|r| &r[..2]).collect();
    assert_eq!(
        heads,
        [
            ["mach das licht im flur an", "turnon area=flur domain=light"],
            ["wie spät ist es", "getcurrenttime"],
            [
                "turn on the lights in the kitchen",
                "turnon area=kitchen domain=light"
            ],
        ]
    );
    for row in &rows {
        let [_, _, base, tokens, sweeps] = row[..] else {
            panic!("not five fields: {row:?}");
        };
        assert!(!base.is_empty());
        let (tokens, sweeps): (u64, u64) = (tokens.parse().unwrap(), sweeps.parse().unwrap());
        // The prompt takes two sweeps and gives the first token; each further token takes one, and one more
        // where the guess was wrong.
        assert!(sweeps > tokens && sweeps <= 2 * tokens, "{row:?}");
    }
    assert!(!first.contains('\x1b'));
    assert_eq!(pleach_with(input.as_bytes(), &[]).ok(), first);
}

#[test]
fn bad_lines_are_named_and_the_session_goes_on() {
    let mut input = b"Wie sp\xe4t ist es\n\n".to_vec();
    input.extend("küche ".repeat(60).as_bytes());
    input.extend(b"\n");
    input.extend(vec![b'x'; 100_000]);
    input.extend("\nPause the music".as_bytes());
    let ran = pleach_with(&input, &[]);
    assert_eq!(ran.code, 2, "{ran:?}");
    let calls: Vec<&str> = ran.out.lines().collect();
    assert_eq!(calls.len(), 1);
    assert!(calls[0].starts_with("pause the music\tmediapause\t"));
    let causes: Vec<&str> = ran.err.lines().filter(|l| !l.starts_with(' ')).collect();
    assert!(causes[0].starts_with("line 1: not UTF-8"), "{causes:?}");
    assert_eq!(causes[1], "note: line 2: empty");
    assert!(
        causes[2].starts_with("line 3: ") && causes[2].contains("tokens"),
        "{causes:?}"
    );
    assert!(causes[3].starts_with("line 4: longer than"), "{causes:?}");
    assert_eq!(causes[4], "3 of 5 lines got no answer");
    assert_eq!(causes.len(), 5);
}

#[test]
fn commands_work_in_a_pipe_and_stay_out_of_its_output() {
    let ran = pleach_with(
        b"/routing base\nreis auf die einkaufsliste bitte\n/experts\n/help\n/nonsense\n/routing\n/quit\nwie spaet\n",
        &[],
    );
    assert_eq!(ran.code, 0, "{ran:?}");
    let rows: Vec<Vec<&str>> = ran.out.lines().map(|l| l.split('\t').collect()).collect();
    assert_eq!(rows.len(), 1, "{ran:?}");
    assert_eq!(rows[0][1], rows[0][2]);
    for word in [
        "routing is base",
        "de ",
        "/quit",
        "/nonsense: no such command",
        "all-ones",
    ] {
        assert!(ran.err.contains(word), "{word}: {}", ran.err);
    }
}

#[test]
fn nothing_in_nothing_out() {
    assert_eq!(pleach::<&str>(&[]).ok(), "");
}

/// A tenth of the evaluation set, of which PEFT's own calls are right in 96 % (`table.json`); `tests/parity`
/// measures all of it.
#[test]
fn the_evaluation_sentences_come_back_as_they_went_in() {
    let eval = std::fs::read_to_string(common::fixtures().join("xlora-intent/eval.jsonl")).unwrap();
    let cases: Vec<serde_json::Value> = eval
        .lines()
        .step_by(10)
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let field = |c: &serde_json::Value, key: &str| c[key].as_str().unwrap().to_owned();
    let input: String = cases.iter().map(|c| field(c, "sentence") + "\n").collect();
    let out = pleach_with(input.as_bytes(), &[]).ok();
    assert_eq!(out.lines().count(), cases.len());
    let mut right = 0;
    for (line, case) in out.lines().zip(&cases) {
        let mut fields = line.split('\t');
        assert_eq!(fields.next().unwrap(), field(case, "sentence"));
        right += usize::from(fields.next().unwrap() == field(case, "intent"));
    }
    assert!(right >= 34, "{right} of {} right", cases.len());
}
