//! A file system of a test's own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::process::run;

/// A file system of its own for the recordings, so small that it is full soon. Unmounted when it is dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    pub fn mount(at: PathBuf, size: &str) -> Self {
        std::fs::create_dir(&at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "weir-test"]).arg(&at);
        let done = run(&mut mount, Duration::from_secs(10));
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Self(at)
    }

    /// Makes it read-only, which works while nobody writes, or writable again.
    pub fn read_only(&self, read_only: bool) {
        mounted(Command::new("mount").args(["-o", if read_only { "remount,ro" } else { "remount,rw" }]).arg(&self.0));
    }
}

fn mounted(command: &mut Command) {
    let done = run(command, Duration::from_secs(10));
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// An ext4 in a file, which becomes read-only as one does that has an error, whoever is writing.
pub struct FailingDisk {
    at: PathBuf,
    old: PathBuf,
}

impl FailingDisk {
    /// `None`, with a word why, where a test may have no loop device: without root, or in a container.
    pub fn mount(at: PathBuf, beside: &Path) -> Option<Self> {
        std::fs::create_dir(&at).unwrap();
        let (image, old) = (beside.join("image"), beside.join("old"));
        std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        std::fs::create_dir(&old).unwrap();
        let loop_mount = ["-t", "ext4", "-o", "loop,errors=remount-ro"];
        let steps = [
            run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image), Duration::from_secs(30)),
            run(Command::new("mount").args(loop_mount).arg(&image).arg(&at), Duration::from_secs(10)),
        ];
        match steps.iter().find(|step| !step.status.success()) {
            None => Some(Self { at, old }),
            Some(failed) => {
                eprintln!(
                    "skipped: there is no ext4 on a loop device here: {}",
                    String::from_utf8_lossy(&failed.stderr)
                );
                None
            }
        }
    }

    /// As if it had an error.
    pub fn fail(&self) {
        mounted(Command::new("mount").args(["-o", "remount,abort"]).arg(&self.at));
    }

    /// Another disk in its place, with the files of the old one.
    pub fn replace(&self) {
        mounted(Command::new("mount").arg("--bind").arg(&self.at).arg(&self.old));
        mounted(Command::new("umount").arg("--lazy").arg(&self.at));
        mounted(Command::new("mount").args(["-t", "tmpfs", "-o", "size=50m", "weir-test"]).arg(&self.at));
        mounted(Command::new("cp").arg("-a").arg(self.old.join(".")).arg(&self.at));
    }
}

impl Drop for FailingDisk {
    fn drop(&mut self) {
        for place in [&self.at, &self.old] {
            let _ = Command::new("umount").arg("--lazy").arg("--quiet").arg(place).status();
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn may_mount() -> bool {
    let probe = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "weir-test"]).arg(probe.path()).output();
    let mounted = mounted.is_ok_and(|output| output.status.success());
    if mounted {
        assert!(Command::new("umount").arg(probe.path()).status().unwrap().success());
    }
    mounted
}

/// Runs this test once more where it may mount: a test that needs a small disk is not skipped.
///
/// True when the caller is to go on.
pub fn where_mounting_works(test: &str) -> bool {
    if may_mount() {
        return true;
    }
    assert!(std::env::var_os("WEIR_TEST_NAMESPACE").is_none(), "a user and mount namespace does not let us mount");
    let mut again = Command::new("unshare");
    again.args(["-Urm", "--"]).arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]);
    let output = run(again.env("WEIR_TEST_NAMESPACE", "1"), Duration::from_secs(120));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success() && out.contains("1 passed"),
        "neither root nor user namespaces, or it failed there:\n{out}\n{err}"
    );
    false
}
