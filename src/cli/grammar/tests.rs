use proptest::prelude::*;

use super::*;

fn call(line: &str) -> Call {
    match parse(line) {
        Ok(Input::Call(call, _)) => call,
        other => panic!("{line:?}: {other:?}"),
    }
}

fn refused(line: &str) -> String {
    match parse(line) {
        Err(wrong) => wrong.0,
        other => panic!("{line:?} is taken: {other:?}"),
    }
}

#[test]
fn every_example_is_read_as_the_command_it_stands_for() {
    for command in ALL {
        assert_eq!(call(command.example).command.verb, command.verb, "{}", command.example);
        assert!(help(&command.words.split(' ').map(str::to_owned).collect::<Vec<_>>()).is_ok());
        let optional = command.arguments.iter().skip_while(|argument| !argument.optional);
        assert!(optional.clone().all(|argument| argument.optional), "{}: optional ones come last", command.words);
    }
}

#[test]
fn help_names_every_command_with_its_example() {
    let all = help(&[]).unwrap();
    for command in ALL {
        assert!(all.contains(&command.usage()) && all.contains(command.example), "{}", command.words);
    }
    let one = help(&["update".into(), "app".into()]).unwrap();
    assert!(one.contains("-l|--url url") && one.contains("update app -l https://"), "{one}");
    let adds = help(&["add".into()]).unwrap();
    assert!(adds.contains("add user") && !adds.contains("remove"), "{adds}");
    assert!(help(&["fly".into()]).is_err());
    assert!(matches!(parse("help show apps"), Ok(Input::Help(words)) if words == ["show", "apps"]));
    assert!(matches!(parse("update app --help"), Ok(Input::Help(words)) if words == ["update app"]));
}

#[test]
fn both_spellings_of_update_app() {
    let by_option = call("update app -l http://h/api defaultApp");
    assert_eq!((by_option.option("url"), by_option.argument(0)), (Some("http://h/api"), Some("defaultApp")));
    let by_place = call("update app defaultApp http://h/api");
    assert_eq!((by_place.argument(0), by_place.argument(1)), (Some("defaultApp"), Some("http://h/api")));
}

#[test]
fn options_stand_anywhere_and_in_every_spelling() {
    for line in [
        "update app -l http://h -u bob shop",
        "update app --url http://h --rest-user bob shop",
        "update app --url=http://h shop -u bob",
        "update app shop -u 'bob' -l \"http://h\"",
        "  update   app  -u  bob  shop  -l  http://h  ",
    ] {
        let call = call(line);
        let seen = (call.option("url"), call.option("rest-user"), call.argument(0), call.arguments.len());
        assert_eq!(seen, (Some("http://h"), Some("bob"), Some("shop"), 1), "{line}");
    }
    assert_eq!(call("update app -l \"\" shop").option("url"), Some(""));
    assert_eq!(call("update app -p -secret shop").option("rest-password"), Some("-secret"));
    assert_eq!(call("terminate -- -name").argument(0), Some("-name"));
    assert_eq!(call("terminate '-name'").argument(0), Some("-name"));
    assert!(call("add app-rest-method -a affluxis").has("all"));
}

#[test]
fn what_is_wrong_is_told_in_one_line_that_says_what_was_expected() {
    for (line, expected) in [
        ("fly", "expected a command: show, add, update, remove, passwd, terminate, help or exit"),
        ("| grep x", "expected a command: "),
        ("show", "expected show with one of: apps, rest-methods, app-rest-methods, users, streams, agents, "),
        ("show planes", "expected show with one of: "),
        ("delete app shop", "expected a command: "),
        ("add app", "expected <app name>: add app "),
        ("add app shop", "expected <app key>: "),
        ("add app shop shopKey", "expected <app url>: "),
        ("add app a b c d", "expected fewer words: add app "),
        ("show apps all", "expected fewer words: show apps [-d|--detail] [--json]"),
        ("show apps -x", "expected other options: show apps "),
        ("show apps -dd", "expected other options: "),
        ("show apps -d --detail", "expected -d once: "),
        ("show apps --json=1", "expected no value behind --json: "),
        ("update app shop -l", "expected a url behind -l: "),
        ("add user", "expected <name>: add user [-r|--role role] <name> [password]"),
        ("add user 'bob", "expected the end of a quote"),
        ("add user bob\\", "expected the end of a quote"),
        ("show apps |", "expected | grep [-i] [-v] TEXT behind a command"),
        ("show apps | sort", "expected | grep"),
        ("show apps | grep", "expected | grep"),
        ("show apps | grep a b", "expected | grep"),
    ] {
        let said = refused(line);
        assert!(said.starts_with(expected), "{line:?}: {said}");
        assert!(!said.contains('\n'), "{line:?}: {said}");
    }
}

#[test]
fn nothing_exit_and_help() {
    for line in ["", "   ", "# a comment", "#"] {
        assert!(matches!(parse(line), Ok(Input::Nothing)), "{line:?}");
    }
    for line in ["exit", " quit ", "logout"] {
        assert!(matches!(parse(line), Ok(Input::Exit)), "{line:?}");
    }
}

#[test]
fn grep_lets_lines_pass() {
    let text = "port 1\nPORT 2\nother\n";
    for (line, passed) in [
        ("show apps | grep port", "port 1\n"),
        ("show apps | grep -i port", "port 1\nPORT 2\n"),
        ("show apps | grep -v port", "PORT 2\nother\n"),
        ("show apps|grep", ""),
        ("show apps | grep -v -i PORT", "other\n"),
        ("show apps | grep 'port 1'", "port 1\n"),
    ] {
        match parse(line) {
            Ok(Input::Call(_, Some(grep))) => assert_eq!(grep.filter(text), passed, "{line}"),
            other => assert!(passed.is_empty() && other.is_err(), "{line}"),
        }
    }
}

#[test]
fn secrets_are_known_and_masked() {
    for (line, shown) in [
        ("add user bob hunter2", "add user bob ***"),
        ("passwd bob hunter2", "passwd bob ***"),
        ("update app -p hunter2 shop", "update app -p *** shop"),
        ("update app shop http://u:hunter2@h/", "update app shop http://u:***@h/"),
        ("update app -l http://u:hunter2@h/ shop", "update app -l http://u:***@h/ shop"),
    ] {
        let call = call(line);
        assert!(call.has_secret(), "{line}");
        assert_eq!(call.shown(), shown);
    }
    for line in ["add user bob", "passwd", "show apps", "update app shop http://h"] {
        assert!(!call(line).has_secret(), "{line}");
    }
    assert_eq!(call("remove app 'a\u{1b}[2J b'").shown(), "remove app \"a\u{fffd}[2J b\"");
}

/// Lines that are nearly right, as people and attackers write them.
fn line() -> impl Strategy<Value = String> {
    let own: Vec<String> =
        ALL.iter().flat_map(|c| c.usage().split(' ').map(str::to_owned).collect::<Vec<_>>()).collect();
    let word = prop_oneof![
        6 => prop::sample::select(own),
        2 => prop::sample::select(vec!["-l", "--url", "-a", "--", "|", "grep", "''", "\"", "\\", "--json", "-p", "help"])
            .prop_map(str::to_owned),
        2 => any::<String>(),
    ];
    prop::collection::vec(word, 0..10).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn any_line_is_read_or_refused_in_one_line(line in line()) {
        match parse(&line) {
            Ok(Input::Call(call, _)) => {
                let shown = call.shown();
                prop_assert!(!shown.chars().any(char::is_control), "{:?}", shown);
                let needed = call.command.arguments.iter().filter(|argument| !argument.optional).count();
                prop_assert!((needed..=call.command.arguments.len()).contains(&call.arguments.len()));
            }
            Ok(_) => {}
            Err(wrong) => prop_assert!(wrong.0.starts_with("expected ") && !wrong.0.contains('\n'), "{}", wrong.0),
        }
    }

    /// What was quoted for the line comes out as it went in.
    #[test]
    fn arguments_arrive_as_they_were_quoted(name in any::<String>(), key in any::<String>(), url in any::<String>()) {
        let quoted = [&name, &key, &url].map(|text| {
            let word = quote(text);
            if word.starts_with('-') || word.starts_with('#') || word == "?" { format!("\"{word}\"") } else { word }
        });
        let call = call(&format!("add app {}", quoted.join(" ")));
        prop_assert_eq!(&call.arguments, &[name, key, url]);
    }
}
