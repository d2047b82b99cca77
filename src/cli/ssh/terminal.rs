//! The other end of an SSH channel: a person at a terminal, or a program that sends lines and reads answers.

use russh::server::Msg;
use russh::{Channel, ChannelMsg};
use tokio::sync::watch;

use crate::cli::console::{Console, MAX_LINE, Reply, Turn, Who};
use crate::cli::edit::{Editor, Typed};

const PROMPT: &str = "> ";
/// The stream of errors, RFC 4254 section 5.2.
const STDERR: u32 = 1;

/// One channel, and what was read of it ahead of its time.
pub(super) struct Terminal {
    channel: Channel<Msg>,
    read: Vec<u8>,
    /// Nothing more will come.
    over: bool,
    /// There is a terminal, and it needs us to edit lines.
    editor: Option<Editor>,
    /// How many columns it has, as that changes.
    columns: watch::Receiver<u32>,
}

impl Terminal {
    /// `pty`: there is a terminal at the other end.
    pub(super) fn new(channel: Channel<Msg>, pty: bool, columns: watch::Receiver<u32>) -> Self {
        let width = usize::try_from(*columns.borrow()).unwrap_or(0);
        Self { channel, read: Vec::new(), over: false, editor: pty.then(|| Editor::new(width)), columns }
    }

    /// Carries out one line, then closes.
    pub(super) async fn exec(mut self, console: &Console, who: &Who, line: &str) {
        let code = self.carry_out(console, who, line).await.unwrap_or(0);
        self.leave(code).await;
    }

    /// Carries out lines until there are no more; where a program sends them, until one fails.
    pub(super) async fn shell(mut self, console: &Console, who: &Who) {
        let person = self.editor.is_some();
        if person {
            self.print(&format!("weir {}: help lists the commands.\n", env!("CARGO_PKG_VERSION"))).await;
        }
        let mut code = 0;
        while let Some(line) = self.line(PROMPT, false).await {
            let Some(who) = console.as_now(who) else {
                self.complain(&format!("the user {} is removed\n", who.name)).await;
                code = 1;
                break;
            };
            match self.carry_out(console, &who, &line).await {
                Some(0) => {}
                Some(failed) if person => code = failed,
                other => {
                    code = other.unwrap_or(0);
                    break;
                }
            }
        }
        self.leave(code).await;
    }

    /// Prints what the line leads to; the exit code, or `None` where who typed it wants to leave.
    async fn carry_out(&mut self, console: &Console, who: &Who, line: &str) -> Option<u8> {
        let reply = match console.run(who, line).await {
            Turn::Done(reply) => reply,
            Turn::Leave => return None,
            Turn::Ask(question) => match self.password(&question.prompt).await {
                Ok(password) => console.answer(who, question, &password).await,
                Err(reply) => reply,
            },
        };
        match reply.code {
            0 => self.print(&reply.text).await,
            _ => self.complain(&reply.text).await,
        }
        Some(reply.code)
    }

    /// A password: twice and unseen from a person, the next line from a program.
    async fn password(&mut self, prompt: &str) -> Result<String, Reply> {
        let refused = |text: &str| Reply { text: format!("{text}\n"), code: 2 };
        let none = || refused("expected a password");
        let first = self.line(prompt, true).await.ok_or_else(none)?;
        if self.editor.is_some() && self.line("Again: ", true).await.ok_or_else(none)? != first {
            return Err(refused("expected the same password twice"));
        }
        Ok(first)
    }

    /// The next line; `None` at the end.
    async fn line(&mut self, prompt: &str, hidden: bool) -> Option<String> {
        match self.editor.is_some() {
            true => self.edited(prompt, hidden).await,
            false => self.plain().await,
        }
    }

    async fn edited(&mut self, prompt: &str, hidden: bool) -> Option<String> {
        self.editor.as_mut()?.begin(prompt, hidden);
        loop {
            let editor = self.editor.as_mut()?;
            if self.columns.has_changed().unwrap_or(false) {
                editor.resize(usize::try_from(*self.columns.borrow_and_update()).unwrap_or(0));
            }
            let fed = self.read.iter().enumerate().find_map(|(at, byte)| editor.feed(*byte).map(|typed| (at, typed)));
            let used = fed.as_ref().map_or(self.read.len(), |(at, _)| at + 1);
            self.read.drain(..used);
            let shown = editor.output();
            self.send(shown).await?;
            match fed {
                Some((_, Typed::Line(line))) => return Some(line),
                Some((_, Typed::End)) => return None,
                // A password that is given up is none.
                Some((_, Typed::Interrupt)) if hidden => return None,
                Some((_, Typed::Interrupt)) => self.editor.as_mut()?.begin(prompt, hidden),
                None if self.over => return None,
                None => self.hear().await,
            }
        }
    }

    /// A line that is too long is handed on as that, for the console to refuse.
    async fn plain(&mut self) -> Option<String> {
        loop {
            let end = self.read.iter().position(|byte| *byte == b'\n');
            if end.is_some() || self.read.len() > MAX_LINE {
                let line: Vec<u8> = self.read.drain(..end.map_or(self.read.len(), |at| at + 1)).collect();
                return Some(text(&line));
            }
            if self.over {
                let rest = std::mem::take(&mut self.read);
                return (!rest.is_empty()).then(|| text(&rest));
            }
            self.hear().await;
        }
    }

    /// Waits for more to read, or for the end.
    async fn hear(&mut self) {
        loop {
            match self.channel.wait().await {
                Some(ChannelMsg::Data { data }) => return self.read.extend_from_slice(&data),
                // The channel stays open for what is to be told.
                Some(ChannelMsg::Eof | ChannelMsg::Close) | None => return self.over = true,
                Some(_) => {}
            }
        }
    }

    async fn print(&mut self, text: &str) {
        let text = self.as_shown(text);
        // One that is gone reads nothing.
        let _ = self.send(text).await;
    }

    async fn complain(&mut self, text: &str) {
        let text = self.as_shown(text);
        if self.editor.is_some() {
            let _ = self.send(text).await;
        } else {
            let _ = self.channel.extended_data_bytes(STDERR, text).await;
        }
    }

    /// A terminal in its raw state wants to be told to begin a line at its beginning.
    fn as_shown(&self, text: &str) -> String {
        if self.editor.is_some() { text.replace('\n', "\r\n") } else { text.to_owned() }
    }

    async fn send(&mut self, text: String) -> Option<()> {
        if text.is_empty() { Some(()) } else { self.channel.data_bytes(text).await.ok() }
    }

    async fn leave(self, code: u8) {
        // One that is gone needs no good-bye.
        let _ = self.channel.exit_status(code.into()).await;
        let _ = self.channel.eof().await;
        let _ = self.channel.close().await;
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end_matches(['\r', '\n']).to_owned()
}
