//! The Dockerfile is the one home of the GStreamer package lists: `./dev` installs what is written there, and what is
//! written there fits together. No engine is needed to see it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// `./dev` with these arguments, called from somewhere else.
fn dev(arguments: &[&str]) -> Output {
    Command::new(root().join("dev")).args(arguments).current_dir("/").output().expect("./dev starts")
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// One instruction: its name, and the rest with its lines joined.
#[derive(Debug)]
struct Instruction {
    name: String,
    rest: String,
}

impl Instruction {
    /// The arguments that are no `--flag`.
    fn operands(&self) -> Vec<String> {
        words(&self.rest).into_iter().filter(|word| !word.starts_with("--")).collect()
    }

    fn flag(&self, name: &str) -> Option<String> {
        let start = format!("--{name}=");
        words(&self.rest).iter().find_map(|word| word.strip_prefix(&start).map(str::to_owned))
    }
}

/// The Dockerfile as an engine reads it: comments out, continued lines joined.
fn instructions() -> Vec<Instruction> {
    let mut all = Vec::new();
    let mut line = String::new();
    for physical in read("Dockerfile").lines() {
        if physical.trim_start().starts_with('#') || physical.trim().is_empty() {
            continue;
        }
        if let Some(continued) = physical.trim_end().strip_suffix('\\') {
            line.push_str(continued);
            continue;
        }
        line.push_str(physical);
        let whole = std::mem::take(&mut line);
        let (name, rest) = whole.trim().split_once(char::is_whitespace).expect("an instruction and its arguments");
        all.push(Instruction { name: name.to_owned(), rest: rest.trim().to_owned() });
    }
    assert_eq!(line, "", "the last line is not continued");
    all
}

/// The instructions before the first FROM, and those of each stage, FROM included.
fn stages() -> (Vec<Instruction>, Vec<Vec<Instruction>>) {
    let (mut before, mut stages) = (Vec::new(), Vec::<Vec<Instruction>>::new());
    for instruction in instructions() {
        if instruction.name == "FROM" {
            stages.push(Vec::new());
        }
        match stages.last_mut() {
            Some(stage) => stage.push(instruction),
            None => before.push(instruction),
        }
    }
    (before, stages)
}

fn last_stage() -> Vec<Instruction> {
    stages().1.pop().expect("a stage")
}

fn the_one<'a>(stage: &'a [Instruction], name: &str) -> &'a Instruction {
    let found: Vec<_> = stage.iter().filter(|i| i.name == name).collect();
    assert_eq!(found.len(), 1, "one {name} in the last stage, not {found:?}");
    found[0]
}

/// The packages in `ARG NAME="…"`.
fn list(name: &str) -> Vec<String> {
    let start = format!("{name}=");
    let (before, _) = stages();
    let values: Vec<_> =
        before.iter().filter(|i| i.name == "ARG").filter_map(|i| i.rest.strip_prefix(&start)).collect();
    assert_eq!(values.len(), 1, "one ARG {name}");
    words(values[0].strip_prefix('"').and_then(|v| v.strip_suffix('"')).expect("a value in quotes"))
}

/// The names in `${NAME}`.
fn variables(text: &str) -> Vec<String> {
    text.split("${").skip(1).map(|after| after.split('}').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn dev_installs_what_the_dockerfile_lists() {
    for (verb, arg) in [("build", "BUILD_PACKAGES"), ("runtime", "RUNTIME_PACKAGES")] {
        let output = dev(&["packages", verb]);
        assert!(output.status.success(), "{output:?}");
        let printed = words(&String::from_utf8(output.stdout).expect("text"));
        assert_eq!(printed, list(arg), "./dev packages {verb}");
        assert!(!printed.is_empty());
    }
    assert!(!dev(&["packages", "other"]).status.success());
}

#[test]
fn no_package_is_listed_twice() {
    let tests = words(&String::from_utf8(dev(&["packages", "test"]).stdout).expect("text"));
    assert!(!tests.is_empty());
    let all = [list("BUILD_PACKAGES"), list("RUNTIME_PACKAGES"), list("GPL_PACKAGES"), tests].concat();
    let mut seen = BTreeSet::new();
    for package in &all {
        assert!(
            package.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c)),
            "{package} is a package's name"
        );
        assert!(seen.insert(package), "{package} is listed twice");
    }
}

#[test]
fn nothing_but_the_dockerfile_names_gstreamer_packages() {
    for file in ["dev", ".ci/run"] {
        for (number, line) in read(file).lines().enumerate() {
            for part in ["gstreamer1", "libgst"] {
                assert!(!line.contains(part), "{file}:{}: {line}", number + 1);
            }
        }
    }
}

#[test]
fn the_image_installs_from_the_lists_only() {
    let (_, stages) = stages();
    let mut installed = BTreeSet::new();
    for run in stages.iter().flatten().filter(|i| i.name == "RUN") {
        for command in run.rest.split("&&").map(str::trim).filter(|c| c.contains("install") && c.starts_with("apt-get"))
        {
            assert!(command.contains("--no-install-recommends"), "{command}");
            for word in words(command).iter().filter(|w| !w.starts_with('-')).skip(2) {
                assert!(word.starts_with("${") && word.ends_with("_PACKAGES}"), "{word} in: {command}");
            }
            installed.extend(variables(command));
        }
    }
    assert_eq!(Vec::from_iter(installed), ["BUILD_PACKAGES", "GPL_PACKAGES", "RUNTIME_PACKAGES"]);
    assert_eq!(
        list("GPL_PACKAGES"),
        Vec::<String>::new(),
        "an image has GPL plugins only where its builder asks for them"
    );
    let last = last_stage();
    assert!(last.iter().all(|i| !i.rest.contains("BUILD_PACKAGES")), "the image that runs has nothing to build with");
}

#[test]
fn the_dockerfile_fits_together() {
    const KNOWN: [&str; 13] = [
        "ARG",
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "RUN",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ];
    let (before, stages) = stages();
    let global: Vec<String> = before.iter().map(|i| i.rest.split('=').next().unwrap_or_default().to_owned()).collect();
    assert!(before.iter().all(|i| i.name == "ARG"), "only ARG stands before FROM");
    let mut names = BTreeSet::new();
    for stage in &stages {
        let from = &stage[0];
        for variable in variables(&from.rest) {
            assert!(global.contains(&variable), "{variable} of {from:?} has a default");
        }
        let mut known = BTreeSet::new();
        for instruction in &stage[1..] {
            assert!(KNOWN.contains(&instruction.name.as_str()), "{instruction:?}");
            // An ARG from before FROM is empty in a stage that does not name it again.
            if instruction.name == "ARG" || instruction.name == "ENV" {
                let name = instruction.rest.split('=').next().unwrap_or_default().to_owned();
                assert!(instruction.rest.contains('=') || global.contains(&name), "{name} has a default");
                known.insert(name);
                continue;
            }
            for variable in variables(&instruction.rest) {
                assert!(known.contains(&variable), "{variable} is declared before {instruction:?}");
            }
            if let Some(source) = instruction.flag("from") {
                assert!(names.contains(&source), "the stage {source} exists");
            }
            // Their JSON form takes double quotes only; anything else would silently become a shell command.
            if ["CMD", "ENTRYPOINT", "VOLUME"].contains(&instruction.name.as_str()) {
                let rest = &instruction.rest;
                assert!(rest.starts_with("[\"") && rest.ends_with("\"]") && !rest.contains('\''), "{instruction:?}");
            }
        }
        if let [_, keyword, name] = from.operands().as_slice() {
            assert_eq!(keyword, "AS");
            names.insert(name.clone());
        }
    }
    assert!(stages.len() > 1, "what builds is not what runs");
}

#[test]
fn what_the_image_copies_exists() {
    let ignore = read(".dockerignore");
    let allowed: Vec<&str> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(ignore.lines().any(|line| line == "*"), ".dockerignore lets in only what it names");
    let mut copied = BTreeSet::new();
    for copy in stages().1.iter().flatten().filter(|i| i.name == "COPY" && i.flag("from").is_none()) {
        let operands = copy.operands();
        let (_, sources) = operands.split_last().expect("a destination");
        assert!(!sources.is_empty(), "{copy:?}");
        for source in sources {
            assert!(root().join(source).exists(), "{source} of {copy:?} exists");
            assert!(allowed.contains(&source.as_str()), ".dockerignore lets {source} in");
            copied.insert(source.clone());
        }
    }
    for name in allowed {
        assert!(copied.contains(name), "{name} of .dockerignore is copied");
    }
    // A file that is compiled in has to be there when the image is built.
    for source in sources(&root().join("src")) {
        let text = fs::read_to_string(&source).expect("a source");
        for path in
            text.split("include_").skip(1).filter_map(|after| after.split('"').nth(1)).filter(|p| p.starts_with("../"))
        {
            let included = source.parent().expect("a folder").join(path);
            if let Ok(included) = included.canonicalize() {
                let inside = included
                    .strip_prefix(root().canonicalize().expect("the checkout"))
                    .expect("inside the checkout")
                    .to_owned();
                let first = inside.iter().next().expect("a name").to_string_lossy().into_owned();
                assert!(
                    copied.contains(&first),
                    "{} includes {}, which the image's build does not have",
                    source.display(),
                    inside.display()
                );
            }
        }
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()) {
        if entry.is_dir() {
            found.extend(sources(&entry));
        } else if entry.extension().is_some_and(|e| e == "rs") {
            found.push(entry);
        }
    }
    found
}

#[test]
fn the_image_runs_weir_as_an_ordinary_user() {
    let last = last_stage();
    let at =
        |name: &str| last.iter().position(|i| i.name == name).unwrap_or_else(|| panic!("{name} in the last stage"));
    let user = &the_one(&last, "USER").rest;
    let number = user.split(':').next().expect("a user").parse::<u32>().expect("a number, which a cluster can check");
    assert!(number >= 1000, "{user}");
    let makes = last.iter().filter(|i| i.name == "RUN").any(|i| i.rest.contains(&format!("useradd --uid {number} ")));
    assert!(makes, "the user {number} is made");
    for later in ["CMD", "ENTRYPOINT", "HEALTHCHECK"] {
        assert!(at("USER") < at(later), "USER before {later}");
    }
    assert_eq!(the_one(&last, "STOPSIGNAL").rest, "SIGTERM");
    assert_eq!(the_one(&last, "ENTRYPOINT").rest, r#"["weir"]"#);
    assert!(the_one(&last, "CMD").rest.starts_with(r#"["serve", "#));
    assert!(the_one(&last, "HEALTHCHECK").rest.contains(r#"CMD ["weir", "health", "#));
}

#[test]
fn the_image_exposes_the_default_port_and_keeps_the_default_folders() {
    let settings = read("conf/flashphoner.properties");
    let value = |key: &str| {
        settings
            .lines()
            .filter(|line| !line.trim_start().starts_with(['#', '!']))
            .filter_map(|line| line.split_once('='))
            .find_map(|(name, value)| (name.trim() == key).then(|| value.trim().to_owned()))
    };
    let last = last_stage();
    let port = |key: &str| value(key).unwrap_or_else(|| panic!("{key} has a default"));
    let (from, to) = (port("media_port_from"), port("media_port_to"));
    let publishers: u16 = from.parse::<u16>().expect("a port") + 1;
    let tcp = ["http.port", "https.port", "ws.port", "wss.port", "rtmp.port", "ssh.port"].map(port).join(" ");
    let exposed = format!("{tcp} {from}/udp {publishers}-{to}/udp");
    assert_eq!(the_one(&last, "EXPOSE").rest, exposed);

    let home = &the_one(&last, "WORKDIR").rest;
    let volumes = &the_one(&last, "VOLUME").rest;
    let records = value("record_dir").expect("a default for record_dir");
    let conf = last.iter().find(|i| i.name == "COPY" && i.operands()[0] == "conf").expect("conf is copied");
    let command = &the_one(&last, "CMD").rest;
    for folder in [format!("{home}/{records}"), format!("{home}/data"), conf.operands()[1].clone()] {
        assert!(volumes.contains(&format!("\"{folder}\"")), "{folder} is a volume of {volumes}");
    }
    for part in
        [format!(r#""--data", "{home}/data""#), format!(r#""--conf", "{}/flashphoner.properties""#, conf.operands()[1])]
    {
        assert!(command.contains(&part), "{part} in {command}");
    }
    let health = &the_one(&last, "HEALTHCHECK").rest;
    assert!(health.contains(&format!(r#""--data", "{home}/data""#)), "{health}");
}

#[test]
fn dev_explains_itself() {
    let output = dev(&["help"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("text");
    for verb in ["setup", "run", "test"] {
        let lines = text.lines().filter(|line| line.trim_start().starts_with(&format!("./dev {verb} "))).count();
        assert_eq!(lines, 1, "one line for {verb} in\n{text}");
    }
    assert_eq!(dev(&["no-such-verb"]).status.code(), Some(2));
    for file in ["dev", ".ci/run"] {
        let mode = fs::metadata(root().join(file)).expect(file).permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{file} can be run");
    }
}
