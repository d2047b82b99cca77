//! The commands there are: the one table that lines are read by and help is printed from (wcs.md section 5).

use super::grammar::{Argument, Command, Opt};

/// What a command does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the table says what each does")]
pub enum Verb {
    ShowApps,
    ShowRestMethods,
    ShowAppRestMethods,
    ShowUsers,
    ShowStreams,
    ShowAgents,
    ShowRecordings,
    ShowNodeSettings,
    AddApp,
    AddAppRestMethod,
    AddUser,
    UpdateApp,
    RemoveApp,
    RemoveAppRestMethod,
    RemoveUser,
    Passwd,
    Terminate,
}

const JSON: Opt = flag(None, "json", "prints JSON");
const DETAIL: Opt = flag(Some('d'), "detail", "shows all there is to know");
const ALL_METHODS: Opt = flag(Some('a'), "all", "all methods; then none is named");
const KEY: Opt = valued('k', "key", "key", "the key that clients connect with");
const URL: Opt = valued('l', "url", "url", "the hook server; \"\" for none");
const MAIN_CLASS: Opt = valued('m', "main-class", "class", "kept as WCS does; without an effect");
const CALLBACK_CLASS: Opt = valued('c', "callback-class", "class", "kept as WCS does; without an effect");
const REST_USER: Opt = valued('u', "rest-user", "user", "the user name that the hook server asks for");
const REST_PASSWORD: Opt =
    Opt { secret: true, ..valued('p', "rest-password", "password", "the password that the hook server asks for") };
const OWNER: Opt = valued('o', "owner", "user", "the user it belongs to");
const ROLE: Opt = valued('r', "role", "role", "admin, or user (the default)");

const fn flag(short: Option<char>, long: &'static str, does: &'static str) -> Opt {
    Opt { short, long, value: None, secret: false, does }
}

const fn valued(short: char, long: &'static str, value: &'static str, does: &'static str) -> Opt {
    Opt { short: Some(short), long, value: Some(value), secret: false, does }
}

const fn required(name: &'static str) -> Argument {
    Argument { name, optional: false, secret: false }
}

const fn optional(name: &'static str) -> Argument {
    Argument { name, optional: true, secret: false }
}

/// Asked for where it is left out, so that it shows on no screen and in no list of processes.
const PASSWORD: Argument = Argument { name: "password", optional: true, secret: true };

/// All commands, in the order help has them; those that begin with the same word stand together.
pub const ALL: &[Command] = &[
    Command {
        verb: Verb::ShowApps,
        words: "show apps",
        options: &[DETAIL, JSON],
        arguments: &[],
        does: "Lists your applications; an admin sees all.",
        example: "show apps --detail",
    },
    Command {
        verb: Verb::ShowRestMethods,
        words: "show rest-methods",
        options: &[JSON],
        arguments: &[],
        does: "Lists the methods a hook server can be called with.",
        example: "show rest-methods",
    },
    Command {
        verb: Verb::ShowAppRestMethods,
        words: "show app-rest-methods",
        options: &[JSON],
        arguments: &[required("app key")],
        does: "Lists the methods that are enabled for an application.",
        example: "show app-rest-methods defaultApp",
    },
    Command {
        verb: Verb::ShowUsers,
        words: "show users",
        options: &[JSON],
        arguments: &[],
        does: "Lists the users of this command line and of REST.",
        example: "show users",
    },
    Command {
        verb: Verb::ShowStreams,
        words: "show streams",
        options: &[JSON],
        arguments: &[],
        does: "Lists the media sessions: who publishes and who plays which stream.",
        example: "show streams | grep PLAYING",
    },
    Command {
        verb: Verb::ShowAgents,
        words: "show agents",
        options: &[JSON],
        arguments: &[],
        does: "Lists the pull agents.",
        example: "show agents",
    },
    Command {
        verb: Verb::ShowRecordings,
        words: "show recordings",
        options: &[JSON],
        arguments: &[],
        does: "Lists the files of record_dir, the newest first.",
        example: "show recordings --json",
    },
    Command {
        verb: Verb::ShowNodeSettings,
        words: "show node-settings",
        options: &[JSON],
        arguments: &[],
        does: "Lists the settings in effect, secrets masked.",
        example: "show node-settings | grep port",
    },
    Command {
        verb: Verb::AddApp,
        words: "add app",
        options: &[MAIN_CLASS, CALLBACK_CLASS, REST_USER, REST_PASSWORD, OWNER],
        arguments: &[required("app name"), required("app key"), required("app url")],
        does: "Adds an application; no method is enabled for it yet.",
        example: "add app -u hooks -p secret shop shopKey https://example.org/hooks",
    },
    Command {
        verb: Verb::AddAppRestMethod,
        words: "add app-rest-method",
        options: &[ALL_METHODS],
        arguments: &[required("app key"), optional("method")],
        does: "Has the hook server of an application called with a method.",
        example: "add app-rest-method defaultApp StreamKeepAliveEvent",
    },
    Command {
        verb: Verb::AddUser,
        words: "add user",
        options: &[ROLE],
        arguments: &[required("name"), PASSWORD],
        does: "Adds a user; asks for the password where none is given.",
        example: "add user --role admin alice",
    },
    Command {
        verb: Verb::UpdateApp,
        words: "update app",
        options: &[KEY, URL, MAIN_CLASS, CALLBACK_CLASS, REST_USER, REST_PASSWORD, OWNER],
        arguments: &[required("app name"), optional("app url")],
        does: "Changes what is given of an application; its URL as -l or behind its name.",
        example: "update app -l https://example.org/hooks defaultApp",
    },
    Command {
        verb: Verb::RemoveApp,
        words: "remove app",
        options: &[],
        arguments: &[required("app name")],
        does: "Takes an application away.",
        example: "remove app shop",
    },
    Command {
        verb: Verb::RemoveAppRestMethod,
        words: "remove app-rest-method",
        options: &[ALL_METHODS],
        arguments: &[required("app key"), optional("method")],
        does: "Has the hook server of an application no longer called with a method.",
        example: "remove app-rest-method --all shopKey",
    },
    Command {
        verb: Verb::RemoveUser,
        words: "remove user",
        options: &[],
        arguments: &[required("name")],
        does: "Takes a user away; applications of theirs stay.",
        example: "remove user alice",
    },
    Command {
        verb: Verb::Passwd,
        words: "passwd",
        options: &[],
        arguments: &[optional("name"), PASSWORD],
        does: "Gives a user, or yourself, another password; asks for it where none is given.",
        example: "passwd alice",
    },
    Command {
        verb: Verb::Terminate,
        words: "terminate",
        options: &[
            valued('i', "id", "mediaSessionId", "the media session of this id"),
            valued('s', "session", "sessionId", "all of this connection"),
            valued('k', "key", "app key", "all of this application"),
            valued('r', "role", "role", "publisher or player"),
        ],
        arguments: &[optional("stream name")],
        does: "Ends the media sessions that everything given fits; answers when they are gone.",
        example: "terminate --role player demo",
    },
];
