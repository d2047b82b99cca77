//! `weir ctl`: the client of the local socket. One line, the lines of a file, or a person at a terminal.

use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Editor};

use super::complete::Completing;
use super::grammar::may_be_kept;
use super::wire::{Request, Response, near};
use super::words::quote;

/// The history of `weir ctl -i`, in the home directory.
const HISTORY: &str = ".weir_history";
/// How many lines of it are kept.
const HISTORY_LINES: usize = 1000;
const PROMPT: &str = "> ";

/// Why a client cannot go on. Displays as one line.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// Nobody listens.
    #[error("no weir runs with the data directory {}: {error}", data.display())]
    NoServer {
        /// The data directory.
        data: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The server has gone.
    #[error("weir has closed the connection")]
    Gone,
    /// The server says what this client does not understand.
    #[error("weir answers something else: is it another version?")]
    Strange,
    /// The terminal.
    #[error("the terminal fails: {0}")]
    Terminal(String),
    /// Reading or writing.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Carries out one line. Several words are one line, each as it is. Gives the exit code.
///
/// # Errors
/// See [`CtlError`].
pub fn one(data: &Path, words: &[String]) -> Result<u8, CtlError> {
    let line = match words {
        [line] => line.clone(),
        words => words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" "),
    };
    let mut client = Client::connect(data)?;
    Ok(client.carry_out(&line)?.unwrap_or(0))
}

/// Carries out the lines that come in, until one fails; asks a person for them at a terminal. Gives the exit code.
///
/// # Errors
/// See [`CtlError`].
pub fn many(data: &Path, interactive: bool) -> Result<u8, CtlError> {
    let mut client = Client::connect(data)?;
    if interactive || io::stdin().is_terminal() {
        return client.converse();
    }
    let mut line = String::new();
    loop {
        line.clear();
        if io::stdin().lock().read_line(&mut line)? == 0 {
            return Ok(0);
        }
        match client.carry_out(line.trim_end_matches(['\r', '\n']))? {
            Some(0) => {}
            other => return Ok(other.unwrap_or(0)),
        }
    }
}

struct Client {
    reading: BufReader<UnixStream>,
    writing: UnixStream,
}

impl Client {
    fn connect(data: &Path) -> Result<Self, CtlError> {
        let connected = near(data, |near| UnixStream::connect(near));
        let writing = connected.map_err(|error| CtlError::NoServer { data: data.to_owned(), error })?;
        Ok(Self { reading: BufReader::new(writing.try_clone()?), writing })
    }

    /// Prints what the line leads to. `None`: who typed it wants to leave.
    fn carry_out(&mut self, line: &str) -> Result<Option<u8>, CtlError> {
        let mut response = self.ask(&Request::Line(line.to_owned()))?;
        loop {
            match response {
                Response::Leave => return Ok(None),
                Response::Done { text, code: 0 } => {
                    print(&mut io::stdout().lock(), &text)?;
                    return Ok(Some(0));
                }
                Response::Done { text, code } => {
                    print(&mut io::stderr().lock(), &text)?;
                    return Ok(Some(code));
                }
                Response::Ask(prompt) => match password(&prompt)? {
                    Some(answer) => response = self.ask(&Request::Answer(answer))?,
                    None => return Ok(Some(1)),
                },
            }
        }
    }

    fn ask(&mut self, request: &Request) -> Result<Response, CtlError> {
        let json = serde_json::to_string(request).map_err(|_| CtlError::Strange)?;
        self.writing.write_all(format!("{json}\n").as_bytes()).map_err(|_| CtlError::Gone)?;
        let mut line = String::new();
        match self.reading.read_line(&mut line) {
            Ok(0) | Err(_) => Err(CtlError::Gone),
            Ok(_) => serde_json::from_str(&line).map_err(|_| CtlError::Strange),
        }
    }

    /// A person's session: lines with editing and history, until they leave.
    fn converse(&mut self) -> Result<u8, CtlError> {
        let failed = |error: ReadlineError| CtlError::Terminal(error.to_string());
        let config = rustyline::Config::builder().completion_type(CompletionType::List).max_history_size(HISTORY_LINES);
        let config = config.map_err(failed)?.history_ignore_dups(true).map_err(failed)?.build();
        let mut editor: Editor<Completing, FileHistory> = Editor::with_config(config).map_err(failed)?;
        editor.set_helper(Some(Completing));
        let history = std::env::var_os("HOME").map(|home| Path::new(&home).join(HISTORY));
        // There is none at first.
        let _ = history.as_ref().map(|file| editor.load_history(file));
        loop {
            match editor.readline(PROMPT) {
                Ok(line) => {
                    if may_be_kept(&line) {
                        editor.add_history_entry(line.as_str()).map_err(failed)?;
                        // A home that cannot be written to is no reason to stop.
                        let _ = history.as_ref().map(|file| editor.append_history(file));
                    }
                    if self.carry_out(&line)?.is_none() {
                        return Ok(0);
                    }
                }
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => return Ok(0),
                Err(error) => return Err(failed(error)),
            }
        }
    }
}

fn print(to: &mut impl Write, text: &str) -> io::Result<()> {
    // Whoever reads has enough: `| head`.
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// Asks for a password: twice and unseen at a terminal, else as the next line that comes in. `None`: it was not given.
fn password(prompt: &str) -> Result<Option<String>, CtlError> {
    if !io::stdin().is_terminal() {
        return Ok(line()?);
    }
    // Before it asks, and until both are typed: who is fast types ahead.
    let _unseen = Unseen::new()?;
    let (first, second) = (asked(prompt)?, asked("Again: ")?);
    if first != second {
        eprintln!("expected the same password twice");
        return Ok(None);
    }
    Ok(first)
}

fn asked(prompt: &str) -> io::Result<Option<String>> {
    eprint!("{prompt}");
    let typed = line();
    eprintln!();
    typed
}

fn line() -> io::Result<Option<String>> {
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line)?;
    Ok((read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned()))
}

/// While it is there, the terminal does not show what is typed.
struct Unseen(Termios);

impl Unseen {
    fn new() -> io::Result<Self> {
        let shown = tcgetattr(io::stdin())?;
        let mut hidden = shown.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Now, &hidden)?;
        Ok(Self(shown))
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        // A terminal that is gone shows nothing.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
