//! A conversation as a file.

use pleach_linux::template::{Message, Role};

/// A JSON object a line: `role`, `content`, and for an answer `experts`, each one's share of the effective scalings
/// (absent where no expert took part).
pub(super) fn json_lines<'n>(
    messages: &[Message],
    shares: &[Vec<f32>],
    name: impl Fn(usize) -> &'n str,
) -> String {
    let mut shares = shares.iter();
    let mut out = String::new();
    for message in messages {
        let mut line = serde_json::json!({
            "role": message.role.name(),
            "content": message.content,
        });
        let of_answer = match message.role {
            Role::Assistant => shares.next(),
            _ => None,
        };
        if let Some(of_answer) = of_answer.filter(|s| !s.is_empty()) {
            let experts = of_answer.iter().enumerate();
            let experts = experts.map(|(class, v)| (name(class).to_owned(), (*v).into()));
            line["experts"] = serde_json::Value::Object(experts.collect());
        }
        out.push_str(&line.to_string());
        out.push('\n');
    }
    out
}

/// A heading a message.
pub(super) fn markdown(messages: &[Message]) -> String {
    let mut out = String::from("# Conversation\n");
    for message in messages {
        let who = match message.role {
            Role::System => "System",
            Role::User => "User",
            Role::Assistant => "Assistant",
        };
        out.push_str(&format!("\n## {who}\n\n{}\n", message.content.trim_end()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms() {
        let messages = [
            Message::new(Role::System, "Be \"brief\"."),
            Message::new(Role::User, "a\nb"),
            Message::new(Role::Assistant, "c\n"),
        ];
        let lines = json_lines(&messages, &[vec![0.25, 0.75]], |class| ["x", "y"][class]);
        assert_eq!(
            lines,
            "{\"role\":\"system\",\"content\":\"Be \\\"brief\\\".\"}\n\
             {\"role\":\"user\",\"content\":\"a\\nb\"}\n\
             {\"role\":\"assistant\",\"content\":\"c\\n\",\"experts\":{\"x\":0.25,\"y\":0.75}}\n"
        );
        assert_eq!(
            markdown(&messages),
            "# Conversation\n\n## System\n\nBe \"brief\".\n\n## User\n\na\nb\n\n## Assistant\n\nc\n"
        );
    }
}
