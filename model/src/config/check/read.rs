//! The text as it is written: TOML, known fields, right types. Serde finds the faults; here they get their path.

use serde_path_to_error::Segment;

use super::Fault;
use crate::config::Config;

pub(super) fn read(text: &str) -> Result<Config, Fault> {
    let deserializer = toml::Deserializer::parse(text).map_err(|error| Fault {
        path: "file".to_owned(),
        problem: format!("{}{}", place(text, error.span()), first_line(error.message())),
    })?;
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let mut path = String::new();
        for segment in error.path() {
            match segment {
                Segment::Seq { index } => path.push_str(&format!("[{index}]")),
                Segment::Map { key } => push(&mut path, key),
                // The value of an enumeration is no field; its place has been named.
                Segment::Enum { .. } | Segment::Unknown => {}
            }
        }
        let mut problem = first_line(error.inner().message());
        if let Some(field) = problem.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
            push(&mut path, field);
            problem = "missing".to_owned();
        }
        if path.is_empty() {
            path = "file".to_owned();
        }
        Fault { path, problem }
    })
}

fn push(path: &mut String, field: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(field);
}

/// `line 3, column 7: `
fn place(text: &str, span: Option<std::ops::Range<usize>>) -> String {
    let Some(before) = span.and_then(|span| text.get(..span.start)) else { return String::new() };
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}: ")
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
