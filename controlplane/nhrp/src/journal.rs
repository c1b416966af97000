//! What an engine was told and what it did, one line of JSON for each call: a node's afternoon, replayed at a desk.
//!
//! A line holds the time, the input, what the routes answered to the engine's questions, and the actions. The first line opens an engine's
//! life: its seed, and what a former life left. That is all an engine depends on, so [`replay`] makes the same engine do the same again,
//! and names the first line where it does otherwise.
//!
//! A journal holds what the configuration and the packets hold, the text of the authentication extension too: keep it from others.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;

use model::program::Binding;
use model::time::Instant;
use model::{Prefix, ProtocolAddr, TableId};
use serde::{Deserialize, Serialize};

use crate::{Action, Engine, Found, Input, Routes, Snapshot, To};

/// The version that is written, and the only one that is read.
const VERSION: u32 = 1;

/// A line of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// An engine's life begins ([`Engine::new`]).
    Opened(Opened),
    /// It was told what the data plane forwards by ([`Engine::adopt`]).
    Adopted {
        /// When.
        at: Instant,
        /// The bindings.
        forwarding: Vec<Binding>,
    },
    /// It handled an input.
    Handled(Handled),
}

/// How an engine's life began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    version: u32,
    /// When.
    pub at: Instant,
    /// All its chance.
    pub seed: u64,
    /// What a former life left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Snapshot>,
}

/// One call of an engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handled {
    /// When.
    pub at: Instant,
    /// What it was told.
    pub input: Input,
    /// What it asked the routes, in order, and what they answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Answer>,
    /// What it wanted done, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<Action>,
}

/// A question to the routes, and the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// [`Routes::lookup`].
    Lookup {
        /// In this table.
        table: TableId,
        /// Of this address.
        of: ProtocolAddr,
        /// The longest match.
        found: Option<Found>,
    },
    /// [`Routes::is_split`].
    Split {
        /// In this table.
        table: TableId,
        /// This prefix.
        prefix: Prefix,
        /// Which leads there.
        to: To,
        /// Whether it is.
        is_split: bool,
    },
}

impl Line {
    /// The line that begins the journal of an engine made by [`Engine::new`] with the same arguments.
    #[must_use]
    pub const fn opened(at: Instant, seed: u64, restored: Option<Snapshot>) -> Self {
        Self::Opened(Opened { version: VERSION, at, seed, restored })
    }

    /// Its text, without the end of line.
    ///
    /// # Errors
    /// None that is known: everything in it has a JSON form.
    pub fn to_text(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
}

/// Does what [`Engine::handle`] does, and returns the line about it.
pub fn handle(
    engine: &mut Engine,
    now: Instant,
    input: Input,
    routes: &dyn Routes,
    actions: &mut Vec<Action>,
) -> Line {
    let listening = Listening { routes, heard: RefCell::default() };
    let before = actions.len();
    engine.handle(now, input.clone(), &listening, actions);
    let actions = actions.iter().skip(before).cloned().collect();
    Line::Handled(Handled { at: now, input, routes: listening.heard.into_inner(), actions })
}

/// Routes that write down what is asked.
struct Listening<'a> {
    routes: &'a dyn Routes,
    heard: RefCell<Vec<Answer>>,
}

impl Routes for Listening<'_> {
    fn lookup(&self, table: TableId, of: ProtocolAddr) -> Option<Found> {
        let found = self.routes.lookup(table, of);
        self.heard.borrow_mut().push(Answer::Lookup { table, of, found });
        found
    }

    fn is_split(&self, table: TableId, prefix: Prefix, to: &To) -> bool {
        let is_split = self.routes.is_split(table, prefix, to);
        self.heard.borrow_mut().push(Answer::Split { table, prefix, to: *to, is_split });
        is_split
    }
}

/// Routes made of recorded answers, to the recorded questions in the recorded order.
#[derive(Default)]
struct Recorded {
    answers: RefCell<VecDeque<Answer>>,
    /// The first question that was another than the recorded one.
    astray: RefCell<Option<(Question, Option<Answer>)>>,
}

/// A question to the routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Lookup(TableId, ProtocolAddr),
    Split(TableId, Prefix, To),
}

impl Answer {
    const fn question(&self) -> Question {
        match *self {
            Self::Lookup { table, of, .. } => Question::Lookup(table, of),
            Self::Split { table, prefix, to, .. } => Question::Split(table, prefix, to),
        }
    }
}

impl Recorded {
    fn answer(&self, question: Question) -> Option<Answer> {
        let answer = self.answers.borrow_mut().pop_front();
        if answer.is_some_and(|a| a.question() == question) {
            return answer;
        }
        self.astray.borrow_mut().get_or_insert((question, answer));
        None
    }
}

impl Routes for Recorded {
    fn lookup(&self, table: TableId, of: ProtocolAddr) -> Option<Found> {
        match self.answer(Question::Lookup(table, of)) {
            Some(Answer::Lookup { found, .. }) => found,
            _ => None,
        }
    }

    fn is_split(&self, table: TableId, prefix: Prefix, to: &To) -> bool {
        matches!(self.answer(Question::Split(table, prefix, *to)), Some(Answer::Split { is_split: true, .. }))
    }
}

/// Where a replay went another way than the journal.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: What,
}

/// What differs.
#[derive(Debug, PartialEq, Eq)]
pub enum What {
    /// The line cannot be read, or is of another version.
    Unreadable(String),
    /// Nothing opened the engine's life before it.
    NotOpened,
    /// The engine asked the routes something else.
    Routes(String),
    /// An action, counted from 1, is another one; `None`: there is none.
    Action {
        /// Which.
        number: usize,
        /// As it was.
        recorded: Option<Box<Action>>,
        /// As it is now.
        made: Option<Box<Action>>,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        let text = |action: &Option<Box<Action>>| match action {
            Some(action) => serde_json::to_string(action).unwrap_or_else(|_| format!("{action:?}")),
            None => "nothing".to_owned(),
        };
        match &self.what {
            What::Unreadable(why) => write!(f, "it cannot be read: {why}"),
            What::NotOpened => write!(f, "no line before it begins the engine's life"),
            What::Routes(what) => write!(f, "{what}"),
            What::Action { number, recorded, made } => {
                write!(f, "action {number} was {}, and is {}", text(recorded), text(made))
            }
        }
    }
}

impl std::error::Error for Difference {}

/// Makes engines do again what the lines say, each life from its [`Line::Opened`] on. How many inputs were handled.
///
/// # Errors
/// The first line where one does something else.
pub fn replay<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<usize, Difference> {
    let mut engine = None;
    let mut handled = 0;
    for (text, line) in lines.into_iter().zip(1..) {
        let differs = |what| Difference { line, what };
        let read = serde_json::from_str(text).map_err(|e| differs(What::Unreadable(e.to_string())))?;
        match (read, &mut engine) {
            (Line::Opened(Opened { version, at, seed, restored }), engine) => {
                if version != VERSION {
                    let why = format!("its version is {version}, this program reads {VERSION}");
                    return Err(differs(What::Unreadable(why)));
                }
                *engine = Some(Engine::new(at, seed, restored));
            }
            (_, None) => return Err(differs(What::NotOpened)),
            (Line::Adopted { at, forwarding }, Some(engine)) => engine.adopt(at, &forwarding),
            (Line::Handled(recorded), Some(engine)) => {
                again(engine, recorded).map_err(differs)?;
                handled += 1;
            }
        }
    }
    Ok(handled)
}

fn again(engine: &mut Engine, recorded: Handled) -> Result<(), What> {
    let routes = Recorded { answers: RefCell::new(recorded.routes.into()), ..Recorded::default() };
    let mut made = Vec::new();
    engine.handle(recorded.at, recorded.input, &routes, &mut made);
    if let Some((asked, answer)) = routes.astray.into_inner() {
        let recorded = answer.map_or_else(|| "nothing".to_owned(), |a| format!("{:?}", a.question()));
        return Err(What::Routes(format!("the routes were asked {recorded}, and are asked {asked:?}")));
    }
    if let Some(answer) = routes.answers.into_inner().pop_front() {
        return Err(What::Routes(format!("the routes were asked {:?}, and are not", answer.question())));
    }
    let length = made.len().max(recorded.actions.len());
    let (mut made, mut recorded) = (made.into_iter(), recorded.actions.into_iter());
    for number in 1..=length {
        let (recorded, made) = (recorded.next(), made.next());
        if recorded != made {
            let (recorded, made) = (recorded.map(Box::new), made.map(Box::new));
            return Err(What::Action { number, recorded, made });
        }
    }
    Ok(())
}
