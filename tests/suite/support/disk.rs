//! A file system of a test's own.

use std::path::PathBuf;
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
    assert!(output.status.success(), "neither root nor user namespaces, or it failed there:\n{out}\n{err}");
    false
}
