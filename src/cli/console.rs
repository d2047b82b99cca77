//! Does what a line says, for who typed it. It knows nothing of sockets and screens: a line in, a [`Turn`] out.

mod apps;
mod live;
mod people;

use std::sync::Arc;
use std::time::SystemTime;

use super::commands::Verb;
use super::grammar::{self, Call, Grep, Input, Wrong};
use super::table::List;
use crate::hook::application::{ApplicationError, Applications};
use crate::hub::Hub;
use crate::pull::Pulls;
use crate::record::Index;
use crate::users::{ADMIN, Role, UserError, Users};

/// The longest line, in bytes, answers to questions included.
pub const MAX_LINE: usize = 8192;

/// What commands work with. A cheap handle.
#[derive(Clone)]
pub struct Console {
    /// Applications.
    pub applications: Applications,
    /// Users.
    pub users: Users,
    /// Streams.
    pub hub: Hub,
    /// Pull agents.
    pub pulls: Pulls,
    /// What is known of the recorded files.
    pub recordings: Index,
    /// The settings in effect, secrets masked.
    pub settings: Arc<[(&'static str, String)]>,
}

/// Who types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// Their name.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Where they come from, for the log.
    pub from: String,
}

/// What a line leads to.
#[derive(Debug)]
pub enum Turn {
    /// It is done, or refused.
    Done(Reply),
    /// Something has to be asked first; [`Console::answer`] goes on with it.
    Ask(Question),
    /// Who typed wants to leave.
    Leave,
}

/// What a command printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Lines, each with its end; one line where something went wrong.
    pub text: String,
    /// How it went, as a program's exit code: 0 well, 1 not, 2 where the line was wrong.
    pub code: u8,
}

/// A password that a command still needs.
#[derive(Debug)]
pub struct Question {
    /// What to ask: `Password of alice: `.
    pub prompt: String,
    call: Call,
}

/// Why a command is not carried out. Displays as one line.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Wrong(#[from] Wrong),
    #[error(transparent)]
    Application(#[from] ApplicationError),
    #[error(transparent)]
    User(#[from] UserError),
    #[error("only an admin may do that")]
    NotAllowed,
    #[error("{0}")]
    Other(String),
}

impl Refused {
    /// Whether the line could not have been carried out whatever there is: it says what was expected.
    fn is_wrong(&self) -> bool {
        use UserError::{Name, Password, Role};
        matches!(
            self,
            Self::Wrong(_) | Self::Application(ApplicationError::Invalid(_)) | Self::User(Name | Password | Role)
        )
    }
}

/// What a command has to say.
enum Output {
    Line(String),
    List(List),
    /// All there is to know of each, a line a field.
    Details(List),
}

type Done = Result<Output, Refused>;

fn line(text: impl Into<String>) -> Done {
    Ok(Output::Line(text.into()))
}

impl Who {
    /// The owner of the process, who has come by way of the data directory.
    pub fn local() -> Self {
        Self { name: ADMIN.to_owned(), role: Role::Admin, from: "this host".to_owned() }
    }

    fn admin(&self) -> Result<(), Refused> {
        if self.role == Role::Admin { Ok(()) } else { Err(Refused::NotAllowed) }
    }
}

impl Console {
    /// Carries out a line.
    pub async fn run(&self, who: &Who, line: &str) -> Turn {
        if line.len() > MAX_LINE {
            return Turn::Done(Reply::wrong(&Wrong(format!("expected a line of at most {MAX_LINE} bytes"))));
        }
        match grammar::parse(line) {
            Err(wrong) => Turn::Done(Reply::wrong(&wrong)),
            Ok(Input::Nothing) => Turn::Done(Reply { text: String::new(), code: 0 }),
            Ok(Input::Exit) => Turn::Leave,
            Ok(Input::Help(words)) => Turn::Done(match grammar::help(&words) {
                Ok(text) => Reply { text, code: 0 },
                Err(wrong) => Reply::wrong(&wrong),
            }),
            Ok(Input::Call(call, grep)) => match self.missing_password(who, &call) {
                Some(prompt) => Turn::Ask(Question { prompt, call }),
                None => Turn::Done(self.call(who, &call, grep.as_ref()).await),
            },
        }
    }

    /// Who has logged in, as they are now; `None` for a user who is removed since.
    pub fn as_now(&self, who: &Who) -> Option<Who> {
        self.users.find(&who.name).map(|user| Who { role: user.role, ..who.clone() })
    }

    /// Goes on with a command once its question is answered.
    pub async fn answer(&self, who: &Who, question: Question, answer: &str) -> Reply {
        let mut call = question.call;
        if call.command.verb == Verb::Passwd && call.arguments.is_empty() {
            call.arguments.push(who.name.clone());
        }
        call.arguments.push(answer.to_owned());
        self.call(who, &call, None).await
    }

    /// What to ask where a password is missing and who typed may give one.
    fn missing_password(&self, who: &Who, call: &Call) -> Option<String> {
        match call.command.verb {
            Verb::AddUser if call.arguments.len() == 1 && who.role == Role::Admin => {
                Some(format!("Password of the new user {}: ", call.arguments[0]))
            }
            Verb::Passwd if call.arguments.len() < 2 => {
                let name = call.argument(0).unwrap_or(&who.name);
                let may = name == who.name || who.role == Role::Admin;
                (may && self.users.find(name).is_some()).then(|| format!("New password of {name}: "))
            }
            _ => None,
        }
    }

    async fn call(&self, who: &Who, call: &Call, grep: Option<&Grep>) -> Reply {
        let done = self.carry_out(who, call).await;
        if call.changes() {
            let went = done.as_ref().err().map_or_else(|| "done".to_owned(), Refused::to_string);
            tracing::info!(user = who.name, from = who.from, "command line: {}: {went}", call.shown());
        }
        let text = match done {
            Ok(Output::Line(line)) => line + "\n",
            Ok(Output::List(list) | Output::Details(list)) if call.has("json") => list.json(),
            Ok(Output::List(list)) => list.text(SystemTime::now()),
            Ok(Output::Details(list)) => list.details(SystemTime::now()),
            Err(refused) => {
                return Reply { text: format!("{refused}\n"), code: if refused.is_wrong() { 2 } else { 1 } };
            }
        };
        Reply { text: grep.map_or(text.clone(), |grep| grep.filter(&text)), code: 0 }
    }

    async fn carry_out(&self, who: &Who, call: &Call) -> Done {
        match call.command.verb {
            Verb::ShowApps => Ok(self.show_apps(who, call)),
            Verb::ShowRestMethods => Ok(apps::show_rest_methods()),
            Verb::ShowAppRestMethods => self.show_app_rest_methods(who, call),
            Verb::AddApp => self.add_app(who, call).await,
            Verb::UpdateApp => self.update_app(who, call).await,
            Verb::RemoveApp => self.remove_app(who, call).await,
            Verb::AddAppRestMethod => self.change_methods(who, call, true).await,
            Verb::RemoveAppRestMethod => self.change_methods(who, call, false).await,
            Verb::ShowUsers => Ok(self.show_users()),
            Verb::AddUser => self.add_user(who, call).await,
            Verb::RemoveUser => self.remove_user(who, call).await,
            Verb::Passwd => self.passwd(who, call).await,
            Verb::ShowStreams => Ok(self.show_streams()),
            Verb::ShowAgents => Ok(self.show_agents()),
            Verb::ShowRecordings => self.show_recordings().await,
            Verb::ShowNodeSettings => Ok(self.show_node_settings()),
            Verb::Terminate => self.terminate(call).await,
        }
    }
}

impl Call {
    /// Whether it does more than look.
    fn changes(&self) -> bool {
        !self.command.words.starts_with("show ")
    }
}

impl Reply {
    fn wrong(wrong: &Wrong) -> Self {
        Self { text: format!("{wrong}\n"), code: 2 }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
