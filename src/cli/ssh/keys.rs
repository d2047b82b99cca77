//! The server's own key, and the public keys that log in.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey, PublicKey};

/// The host key's file under the data directory.
pub const HOST_KEY: &str = "ssh_host_ed25519_key";
/// The file of public keys under the data directory.
pub const AUTHORIZED_KEYS: &str = "authorized_keys";
/// What is read of a file of public keys, bytes.
const MAX_KEYS: u64 = 1 << 20;
/// What is read of a host key's file, bytes.
const MAX_HOST_KEY: u64 = 1 << 16;

/// Why there is no host key.
#[derive(Debug, thiserror::Error)]
pub enum HostKeyError {
    /// The file cannot be read or written.
    #[error("cannot use {}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It is no key.
    #[error(
        "{} is no SSH private key without a passphrase: put back a copy, or move it away and weir makes a new one, of which clients will warn",
        .0.display()
    )]
    Damaged(PathBuf),
    /// A new one could not be made: weir's own fault.
    #[error("no SSH host key can be made: {0}")]
    NotMade(String),
}

/// The host key under `data`, made at the first start: clients remember it. For the owner alone. Blocks.
///
/// # Errors
/// See [`HostKeyError`].
pub fn host_key(data: &Path) -> Result<PrivateKey, HostKeyError> {
    let path = data.join(HOST_KEY);
    let failed = |error| HostKeyError::Io { path: path.clone(), error };
    match bounded(&path, MAX_HOST_KEY) {
        Ok(text) => {
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(failed)?;
            let key = PrivateKey::from_openssh(&text).ok().filter(|key| !key.is_encrypted());
            key.ok_or(HostKeyError::Damaged(path))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let not_made = |error: russh::keys::ssh_key::Error| HostKeyError::NotMade(error.to_string());
            let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).map_err(not_made)?;
            let text = key.to_openssh(LineEnding::LF).map_err(not_made)?;
            write_whole(&path, text.as_bytes()).map_err(failed)?;
            Ok(key)
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(HostKeyError::Damaged(path)),
        Err(error) => Err(failed(error)),
    }
}

/// Whether a file of public keys has this one. One that cannot be read has none. Blocks.
pub fn lists(file: &Path, key: &PublicKey) -> bool {
    let text = bounded(file, MAX_KEYS).unwrap_or_default();
    keys(&text).flatten().any(|listed| listed.key_data() == key.key_data())
}

/// What is wrong with a file of public keys, for the log: once, at the start. Blocks.
pub fn problems(file: &Path) -> Vec<String> {
    match bounded(file, MAX_KEYS) {
        Ok(text) => keys(&text).filter_map(Result::err).map(|line| format!("line {line} is no public key")).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => vec![format!("it cannot be read: {error}")],
    }
}

/// The keys of a file, or the number of a line that has none. A line with options has none: to pass over what they
/// forbid would let in more than whoever wrote them wanted.
fn keys(text: &str) -> impl Iterator<Item = Result<PublicKey, usize>> {
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    let keys = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    keys.map(|(number, line)| PublicKey::from_openssh(line).map_err(|_| number))
}

fn bounded(path: &Path, limit: u64) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(limit).read_to_string(&mut text)?;
    Ok(text)
}

/// Writes a file that is there as a whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("tmp");
    let _ = std::fs::remove_file(&draft);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&draft, path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn public() -> String {
        let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
        key.public_key().to_openssh().unwrap()
    }

    #[test]
    fn the_host_key_is_made_once_and_kept() {
        let data = tempfile::tempdir().unwrap();
        let first = host_key(data.path()).unwrap();
        let file = data.path().join(HOST_KEY);
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(host_key(data.path()).unwrap().public_key(), first.public_key());
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        for damaged in [b"".as_slice(), b"-----BEGIN OPENSSH PRIVATE KEY-----\n", b"\xff\xfe", &[b'x'; 100_000]] {
            std::fs::write(&file, damaged).unwrap();
            let refused = host_key(data.path()).unwrap_err();
            assert!(matches!(refused, HostKeyError::Damaged(_)), "{refused}");
        }
        assert!(matches!(host_key(Path::new("/nowhere")), Err(HostKeyError::Io { .. })));
    }

    #[test]
    fn keys_are_found_among_comments_and_lines_with_options_are_not() {
        let data = tempfile::tempdir().unwrap();
        let file = data.path().join(AUTHORIZED_KEYS);
        let (one, two, three) = (public(), public(), public());
        let text =
            format!("# ours\n\n{one} alice@host\r\n  {two}\nfrom=\"10.0.0.1\" {three}\nnonsense\nssh-ed25519 AAAA\n");
        std::fs::write(&file, text).unwrap();
        let key = |text: &str| PublicKey::from_openssh(text).unwrap();
        assert!(lists(&file, &key(&one)) && lists(&file, &key(&two)));
        assert!(!lists(&file, &key(&three)), "what its options forbid is not known");
        assert!(!lists(&file, &key(&public())));
        assert_eq!(problems(&file), ["line 5", "line 6", "line 7"].map(|line| format!("{line} is no public key")));
        assert!(!lists(Path::new("/nowhere"), &key(&one)));
        assert!(problems(Path::new("/nowhere")).is_empty());
    }
}
