//! Templates of eight families and one that uses what templates use of Jinja, against transformers
//! (`templates/make.py` made `templates/expected.json`).

use pleach_linux::template::{ChatTemplate, Message, Moment, Role, Surroundings, TemplateError};
use serde_json::Value;
use std::path::Path;

fn read(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap()
}

fn messages(conversation: &Value) -> Vec<Message> {
    let all = conversation.as_array().unwrap().iter();
    all.map(|m| {
        let role = match text(m, "role") {
            "system" => Role::System,
            "user" => Role::User,
            _ => Role::Assistant,
        };
        Message::new(role, text(m, "content"))
    })
    .collect()
}

#[test]
fn every_template_says_what_transformers_says() {
    let expected: Value = serde_json::from_str(&read("expected.json")).unwrap();
    let around = Surroundings {
        bos: text(&expected, "bos").to_owned(),
        eos: text(&expected, "eos").to_owned(),
        now: Moment::since_epoch(expected["now"].as_u64().unwrap()),
    };
    let cases = expected["cases"].as_array().unwrap();
    let mut wrong = Vec::new();
    for case in cases {
        let (name, conversation) = (text(case, "template"), text(case, "conversation"));
        let template = ChatTemplate::parse(&read(name)).unwrap();
        let messages = messages(&expected["conversations"][conversation]);
        let answer_next = case["answer_next"].as_bool().unwrap();
        let found = template.render(&messages, answer_next, &around);
        let right = match (&found, case["raised"].as_str()) {
            (Ok(found), None) => found == text(case, "text"),
            (Err(TemplateError::Raised(why)), Some(raised)) => why == raised,
            _ => false,
        };
        if !right {
            wrong.push(format!("{name} {conversation}\n{found:?}\n{case}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(cases.len() >= 9 * 8 * 2);
}

/// Transformers' own ChatML, as most models that use it have it.
#[test]
fn chatml_is_smollm2s_without_its_system_message() {
    let smol = ChatTemplate::parse(&read("smollm2.jinja")).unwrap();
    let ours = ChatTemplate::parse(ChatTemplate::CHATML).unwrap();
    let messages = [
        Message::new(Role::System, "Be brief."),
        Message::new(Role::User, "Hi"),
        Message::new(Role::Assistant, "Ho"),
    ];
    for answer_next in [false, true] {
        let render = |t: &ChatTemplate| t.render(&messages, answer_next, &Surroundings::default());
        assert_eq!(render(&ours), render(&smol));
    }
}
