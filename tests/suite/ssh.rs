//! The command line over SSH, with OpenSSH's client: passwords and keys, one line and a shell, limits, a host key that
//! stays, and strangers that mean no good.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::support::{Home, SOON, Setup, Weir, run, wait_until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_weir");

fn setup(home: &Home) -> Setup {
    home.setup().set("ssh.port=free")
}

/// A server whose user admin has the password `hunter2`.
fn start(home: &Home) -> Weir {
    let weir = setup(home).start();
    let mut command = Command::new(PROGRAM);
    command.args(["ctl", "passwd", "admin", "hunter2"]).current_dir(home.path());
    assert!(run(&mut command, SOON).status.success());
    weir
}

/// OpenSSH's client as `user`, with its files in `home`. A password comes from a program, as `SSH_ASKPASS` has it.
struct Client {
    home: PathBuf,
    port: u16,
    user: String,
    options: Vec<String>,
    password: Option<String>,
    /// How often the password is tried.
    attempts: u8,
}

impl Client {
    fn new(home: &Home, weir: &Weir) -> Self {
        let client = Self {
            home: home.path().to_owned(),
            port: weir.port_of("ssh.port"),
            user: "admin".to_owned(),
            options: Vec::new(),
            password: None,
            attempts: 1,
        };
        let known = home.path().join("known_hosts");
        let client = client.option(&format!("UserKnownHostsFile={}", known.display()));
        client.option("StrictHostKeyChecking=accept-new").option("LogLevel=ERROR")
    }

    fn option(mut self, option: &str) -> Self {
        self.options.extend(["-o".to_owned(), option.to_owned()]);
        self
    }

    fn argument(mut self, argument: &str) -> Self {
        self.options.push(argument.to_owned());
        self
    }

    fn user(mut self, user: &str) -> Self {
        self.user = user.to_owned();
        self
    }

    fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    fn key(self, key: &Path) -> Self {
        self.option("IdentitiesOnly=yes").option("BatchMode=yes").argument("-i").argument(&key.to_string_lossy())
    }

    fn command(&self, line: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        command.args(["-F", "none", "-p", &self.port.to_string()]).args(&self.options);
        command.arg(format!("-oNumberOfPasswordPrompts={}", self.attempts));
        command.arg(format!("{}@127.0.0.1", self.user)).args(line);
        command.env("HOME", &self.home).env_remove("SSH_AUTH_SOCK").env("TERM", "xterm");
        if let Some(password) = &self.password {
            let program = self.home.join("askpass");
            std::fs::write(&program, "#!/bin/sh\nprintf '%s\\n' \"$ASKED\"\n").unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
            command.env("SSH_ASKPASS", program).env("SSH_ASKPASS_REQUIRE", "force").env("ASKED", password);
        }
        command
    }

    /// Runs one line; the exit code, output and error output.
    fn run(&self, line: &[&str]) -> (i32, String, String) {
        told(run(&mut self.command(line), SOON))
    }

    /// The same with an input.
    fn fed(&self, line: &[&str], input: &str) -> (i32, String, String) {
        let file = self.home.join("input");
        std::fs::write(&file, input).unwrap();
        let ssh = self.command(line);
        let mut command = Command::new("timeout");
        command.arg(SOON.as_secs().to_string()).arg("ssh").args(ssh.get_args());
        command.envs(ssh.get_envs().filter_map(|(name, value)| Some((name, value?)))).env_remove("SSH_AUTH_SOCK");
        let input = std::fs::File::open(file).unwrap();
        told(command.stdin(input).output().unwrap())
    }
}

fn told(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// A session at a terminal of ssh's making.
struct Screen {
    child: Child,
    stdin: ChildStdin,
    news: Receiver<String>,
    seen: String,
}

impl Screen {
    fn open(client: Client, line: &[&str]) -> Self {
        let mut command = client.argument("-tt").command(line);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (told, news) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stdout.read(&mut buffer) {
                let _ = told.send(String::from_utf8_lossy(&buffer[..read]).into_owned());
            }
        });
        Self { child, stdin, news, seen: String::new() }
    }

    /// Waits until this is shown; gives what was shown up to it.
    fn until(&mut self, text: &str) -> String {
        while !self.seen.contains(text) {
            let more = self.news.recv_timeout(SOON);
            self.seen.push_str(&more.unwrap_or_else(|_| panic!("no {text:?} in {:?}", self.seen)));
        }
        let end = self.seen.find(text).unwrap() + text.len();
        let rest = self.seen.split_off(end);
        std::mem::replace(&mut self.seen, rest)
    }

    fn send(&mut self, keys: &str) {
        self.stdin.write_all(keys.as_bytes()).unwrap();
    }

    /// What is shown until ssh has ended, and its exit code.
    fn end(mut self) -> (i32, String) {
        self.seen.extend(std::iter::from_fn(|| match self.news.recv_timeout(SOON) {
            Ok(more) => Some(more),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("ssh goes on: {:?}", self.child.kill()),
        }));
        (self.child.wait().unwrap().code().unwrap_or(-1), self.seen)
    }
}

/// An empty prompt, as the editor draws it.
const PROMPT: &str = "\r> \u{1b}[K\r\u{1b}[2C";

#[test]
fn one_line_with_a_password() {
    let home = Home::new();
    let weir = start(&home);
    let admin = Client::new(&home, &weir).password("hunter2");
    let (code, out, err) = admin.run(&["show", "apps"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("defaultApp") && out.contains("flashStreamingApp"), "{out}");
    assert_eq!(admin.run(&["update app -l http://127.0.0.1:1/MyAPI defaultApp"]).0, 0);
    assert!(admin.run(&["show apps"]).1.contains("http://127.0.0.1:1/MyAPI"));
    for (line, code, said) in [
        ("fly", 2, "expected a command: "),
        ("add app shop", 2, "expected <app key>: "),
        ("remove app none", 1, "there is no application none"),
    ] {
        let (is, out, err) = admin.run(&[line]);
        assert_eq!((is, out.as_str()), (code, ""), "{line}: {err}");
        assert!(err.starts_with(said) && err.lines().count() == 1, "{line}: {err:?}");
    }
    assert_eq!(admin.fed(&["add user bob"], "hunter3\n").0, 0);
    let bob = Client::new(&home, &weir).user("bob").password("hunter3");
    assert_eq!(bob.run(&["show apps"]).1, "none\n", "the applications of others");
    assert_eq!(bob.run(&["remove user admin"]), (1, String::new(), "only an admin may do that\n".to_owned()));
    assert!(weir.logged("command line: logged in by password"), "{:#?}", weir.log());
    assert!(!weir.logged("hunter"), "{:#?}", weir.log());
    weir.stop();
}

#[test]
fn the_password_of_the_first_start_logs_in() {
    let home = Home::new();
    let weir = setup(&home).start();
    let line = weir.wait_log("with the password ");
    let password = line.split("the password ").nth(1).unwrap().split(' ').next().unwrap();
    assert_eq!(Client::new(&home, &weir).password(password).run(&["show users"]).0, 0);
    weir.stop();
}

#[test]
fn wrong_passwords_are_slow_logged_and_refused() {
    let home = Home::new();
    let mut weir = start(&home);
    weir.announce("command line: a wrong user name or password, for \"admin\"");
    weir.announce("command line: a wrong user name or password, for \"nobody\"");
    for user in ["admin", "nobody"] {
        let began = Instant::now();
        let (code, out, err) = Client::new(&home, &weir).user(user).password("hunter3").run(&["show apps"]);
        assert_eq!((code, out.as_str()), (255, ""), "{err}");
        assert!(err.contains("Permission denied (publickey,password)"), "{err}");
        assert!(began.elapsed() >= Duration::from_secs(1));
    }
    let (code, _, err) = Client::new(&home, &weir).option("BatchMode=yes").run(&["show apps"]);
    assert!(code == 255 && err.contains("Permission denied"), "{err}");
    assert!(!weir.logged("hunter3"));
    let tried = |weir: &Weir| weir.log().iter().filter(|line| line.contains("a wrong user name")).count();
    let before = tried(&weir);
    let many = Client { attempts: 20, ..Client::new(&home, &weir).password("hunter3") };
    assert_eq!(many.run(&["show apps"]).0, 255);
    assert_eq!(tried(&weir) - before, 6, "attempts of one connection");
    assert_eq!(Weir::denials(&weir.get("/metrics").body, "ssh", "password"), tried(&weir) as u64);
    weir.stop();
}

/// Makes a key of OpenSSH's.
fn keygen(home: &Home, name: &str, kind: &[&str]) -> PathBuf {
    let file = home.path().join(name);
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-N", "", "-C", "a comment", "-f"]).arg(&file).args(["-t"]).args(kind);
    assert!(run(&mut command, SOON).status.success());
    file
}

fn public(key: &Path) -> String {
    std::fs::read_to_string(key.with_extension("pub")).unwrap()
}

#[test]
fn keys_of_a_file_log_in_and_the_file_is_read_anew() {
    let home = Home::new();
    let weir = start(&home);
    let keys = home.path().join("data/authorized_keys");
    for (name, kind) in [("ed", &["ed25519"][..]), ("ec", &["ecdsa", "-b", "256"]), ("rsa", &["rsa", "-b", "2048"])] {
        let key = keygen(&home, name, kind);
        let client = Client::new(&home, &weir).key(&key);
        let _ = std::fs::remove_file(&keys);
        assert_eq!(client.run(&["show users"]).0, 255, "{name}: no file");
        std::fs::write(&keys, format!("# ours\nfrom=\"10.0.0.1\" {}", public(&key))).unwrap();
        assert_eq!(client.run(&["show users"]).0, 255, "{name}: what its options forbid is not known");
        std::fs::write(&keys, format!("# ours\n\n{}", public(&key))).unwrap();
        let (code, out, err) = client.run(&["show users"]);
        assert!(code == 0 && out.contains("admin"), "{name}: {err}");
        assert_eq!(Client::new(&home, &weir).user("nobody").key(&key).run(&["show users"]).0, 255);
    }
    assert!(weir.logged("command line: logged in by the key SHA256:"), "{:#?}", weir.log());
    weir.stop();

    let elsewhere = home.path().join("keys");
    std::fs::write(&elsewhere, format!("nonsense\n{}", public(&home.path().join("ed")))).unwrap();
    let mut weir = setup(&home).set(&format!("ssh_authorized_keys={}", elsewhere.display())).start();
    weir.announce("line 1 is no public key that weir can use");
    assert_eq!(Client::new(&home, &weir).key(&home.path().join("ed")).run(&["show users"]).0, 0);
    assert_eq!(Client::new(&home, &weir).key(&home.path().join("rsa")).run(&["show users"]).0, 255);
    weir.stop();
}

#[test]
fn the_host_key_stays_and_is_for_its_owner_alone() {
    let home = Home::new();
    let weir = start(&home);
    let file = home.path().join("data/ssh_host_ed25519_key");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let first = std::fs::read(&file).unwrap();
    let strict = |weir: &Weir| {
        // A host is known by its port too, which is another one after a restart.
        let alias = "HostKeyAlias=weir";
        Client::new(&home, weir).option(alias).password("hunter2").run(&["show apps"])
    };
    assert_eq!(strict(&weir).0, 0);
    weir.stop();
    let weir = setup(&home).start();
    let (code, _, err) = strict(&weir);
    assert_eq!((code, err.as_str()), (0, ""), "the key that the client remembers");
    weir.stop();
    assert_eq!(std::fs::read(&file).unwrap(), first);
    // OpenSSH reads it as a key.
    assert!(run(Command::new("ssh-keygen").args(["-y", "-f"]).arg(&file), SOON).status.success());
    std::fs::write(&file, "nonsense").unwrap();
    let output = setup(&home).run();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && err.contains("is no SSH private key"), "{err}");
}

#[test]
fn a_person_has_a_shell_with_editing_and_history() {
    let home = Home::new();
    let weir = start(&home);
    let mut screen = Screen::open(Client::new(&home, &weir).password("hunter2"), &[]);
    screen.until("help lists the commands.\r\n");
    screen.until(PROMPT);
    // A slip that is rubbed out.
    screen.send("show appz\u{7f}s\r");
    assert!(screen.until(PROMPT).contains("flashStreamingApp  flashStreamingApp"));
    screen.send("upd\tapp defaultApp http://127.0.0.1:1/MyAPI\r");
    assert!(screen.until(PROMPT).contains("the application defaultApp is updated\r\n"));
    // The line before the last.
    screen.send("\u{1b}[A\u{1b}[A\r");
    assert!(screen.until(PROMPT).contains("http://127.0.0.1:1/MyAPI"));
    screen.send("fly\r");
    assert!(screen.until(PROMPT).contains("expected a command: "));
    screen.send("half a line\u{3}");
    screen.until("^C\r\n");
    screen.until(PROMPT);
    screen.send("passwd\r");
    screen.until("New password of admin: ");
    screen.send("hunter5\r");
    screen.until("Again: ");
    screen.send("hunter5\r");
    let shown = screen.until(PROMPT);
    assert!(shown.contains("the password of admin is changed") && !shown.contains("hunter5"), "{shown:?}");
    screen.send("exit\r");
    assert_eq!(screen.end().0, 0);

    let mut screen = Screen::open(Client::new(&home, &weir).password("hunter5"), &[]);
    screen.until(PROMPT);
    screen.send("\u{4}");
    assert_eq!(screen.end().0, 0, "the end of input leaves");

    let mut screen = Screen::open(Client::new(&home, &weir).password("hunter5"), &["passwd admin"]);
    screen.until("New password of admin: ");
    screen.send("hunter6\r");
    screen.until("Again: ");
    screen.send("hunter7\r");
    let (code, shown) = screen.end();
    assert!(code == 2 && shown.contains("expected the same password twice"), "{shown}");
    weir.stop();
}

#[test]
fn a_program_sends_lines_and_stops_at_the_first_that_fails() {
    let home = Home::new();
    let weir = start(&home);
    let admin = Client::new(&home, &weir).password("hunter2").argument("-T");
    let (code, out, err) = admin.fed(&[], "# set up\nshow users\nadd user eve\nhunter3\nshow users");
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("the user eve is added") && out.contains("eve    user"), "{out}");
    assert!(!out.contains("> "), "a program needs no prompt: {out}");
    let (code, out, err) = admin.fed(&[], "show users\nremove user nobody\nremove user eve\n");
    assert!(code == 1 && out.contains("eve") && err.contains("there is no user nobody"), "{out} {err}");
    assert!(admin.run(&["show users"]).1.contains("eve"));
    let long = format!("terminate {}\n", "x".repeat(20_000));
    let (code, _, err) = admin.fed(&[], &long);
    assert!(code == 2 && err.starts_with("expected a line of at most 8192 bytes"), "{err}");
    weir.stop();
}

#[test]
fn nothing_else_is_to_be_had() {
    let home = Home::new();
    let weir = start(&home);
    let admin = || Client::new(&home, &weir).password("hunter2");
    let (code, _, err) = admin().argument("-s").run(&["sftp"]);
    assert!(code != 0 && err.contains("subsystem request failed"), "{err}");
    let port = weir.port();
    let (code, _, err) = admin().argument("-W").argument(&format!("127.0.0.1:{port}")).run(&[]);
    assert!(code == 255 && err.contains("stdio forwarding failed"), "{err}");
    let forward = format!("0:127.0.0.1:{port}");
    let (code, _, err) = admin().option("ExitOnForwardFailure=yes").argument("-R").argument(&forward).run(&["help"]);
    assert!(code == 255 && err.contains("remote port forwarding failed"), "{err}");
    let (code, out, _) = admin().option("SetEnv=WEIR_HTTP_PORT=1").argument("-A").argument("-X").run(&["show apps"]);
    assert!(code == 0 && out.contains("defaultApp"), "what is asked for beside is passed over");
    weir.stop();
}

#[test]
fn limits_of_time_and_of_number() {
    let home = Home::new();
    let mut weir = setup(&home).set("ssh_idle_timeout=1500").set("ssh_max_connections=1").start();
    let mut command = Command::new(PROGRAM);
    command.args(["ctl", "passwd", "admin", "hunter2"]).current_dir(home.path());
    assert!(run(&mut command, SOON).status.success());
    weir.announce("command line: too many clients (ssh_max_connections)");
    let mut first = Screen::open(Client::new(&home, &weir).password("hunter2"), &[]);
    first.until(PROMPT);
    let (code, _, err) = Client::new(&home, &weir).password("hunter2").run(&["show apps"]);
    assert!(code == 255 && err.contains("too many clients are logged in"), "{err}");
    // Who types nothing is logged out, and makes room.
    let began = Instant::now();
    assert_eq!(first.end().0, 255);
    assert!(began.elapsed() < Duration::from_secs(10));
    let mut answer = (255, String::new(), String::new());
    wait_until("room for another client", || {
        answer = Client::new(&home, &weir).password("hunter2").run(&["show apps"]);
        answer.0 == 0
    });
    weir.stop();
}

#[test]
fn strangers_that_mean_no_good_do_no_harm() {
    let home = Home::new();
    let weir = start(&home);
    let port = weir.port_of("ssh.port");
    let send = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        // It may close before it has read all.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
    };
    let hello = b"SSH-2.0-x\r\n";
    let after = |bytes: &[u8]| [hello.as_slice(), bytes].concat();
    let noise: Vec<u8> = (0u32..20_000).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let attacks = [
        Vec::new(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![b'x'; 1 << 20],
        noise.clone(),
        after(b""),
        after(&noise),
        after(&[0xff; 64]),
        after(&[0, 0, 0, 0, 0]),
        after(&[0, 0, 0, 12, 10, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        after(&[0, 0, 0, 12, 200, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        after(&[0, 0, 0, 12, 10, 50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ];
    for (at, bytes) in attacks.iter().enumerate() {
        send(bytes);
        assert!(weir.get("/health/live").status == 200, "attack {at}");
    }
    // Strangers who say nothing take only the places of strangers, and a further one is turned away at once.
    let silent: Vec<_> = (0..16).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    for mut stream in &silent {
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.read_exact(&mut [0; 7]).unwrap();
    }
    let mut further = TcpStream::connect(("127.0.0.1", port)).unwrap();
    further.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(further.read(&mut [0; 64]).unwrap_or(0), 0, "closed without a word");
    let mut command = Command::new(PROGRAM);
    command.args(["ctl", "show apps"]).current_dir(home.path());
    assert!(run(&mut command, SOON).status.success(), "the operator is not shut out");
    drop(silent);
    wait_until("room for who means well", || Client::new(&home, &weir).password("hunter2").run(&["show apps"]).0 == 0);
    weir.stop();
}

#[test]
fn the_end_of_the_server_is_told_and_not_held_up() {
    let home = Home::new();
    let weir = start(&home);
    let mut screen = Screen::open(Client::new(&home, &weir).password("hunter2"), &[]);
    screen.until(PROMPT);
    let silent = TcpStream::connect(("127.0.0.1", weir.port_of("ssh.port"))).unwrap();
    let (status, took) = weir.stop();
    assert!(status.success() && took < Duration::from_secs(5), "{took:?}");
    assert_eq!(screen.end().0, 255);
    drop(silent);
}

#[test]
fn it_can_be_switched_off() {
    let home = Home::new();
    let weir = home.setup().set("ssh.port=0").start();
    let ports = std::fs::read_to_string(home.path().join("data/ports.json")).unwrap();
    assert!(!ports.contains("ssh.port") && !weir.logged("ssh://"), "{ports}");
    assert!(!home.path().join("data/ssh_host_ed25519_key").exists());
    weir.stop();
}
