//! Processes that end with their owner.

use std::ffi::OsStr;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

/// A running process. Dropping it kills it, by its id, and waits for it.
pub struct Process {
    pub child: Child,
    name: String,
}

impl Process {
    /// Starts `program`. The kernel ends it too should the test be killed before it can.
    pub fn start<S: AsRef<OsStr>>(program: S, set_up: impl FnOnce(&mut Command)) -> Self {
        let name = program.as_ref().to_string_lossy().into_owned();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).stdin(Stdio::null());
        set_up(&mut command);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { child, name }
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap_or_else(|error| panic!("{} ({pid:?}): {error}", self.name));
    }

    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub fn ended(&mut self, limit: Duration) -> ExitStatus {
        let name = self.name.clone();
        super::wait(&format!("the end of {name}"), limit, || self.child.try_wait().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end, which must come within `limit`.
pub fn run(command: &mut Command, limit: Duration) -> Output {
    let name = format!("{command:?}");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.unwrap_or_else(|error| panic!("{name} does not start: {error}"));
    let pid = Pid::from_child(&child);
    let (done, watchdog) = std::sync::mpsc::channel::<()>();
    let guard = std::thread::spawn(move || {
        // Nothing is ever sent: the channel closes when the process has ended, before its id can be another's.
        let late = watchdog.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
        if late {
            let _ = kill_process(pid, Signal::KILL);
        }
        late
    });
    let began = Instant::now();
    let output = child.wait_with_output().unwrap();
    drop(done);
    assert!(!guard.join().unwrap(), "{name} took longer than {:?}", began.elapsed());
    output
}
