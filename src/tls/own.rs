//! The certificate of a new installation: signed by itself, so browsers ask before they trust it.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DnType, KeyPair};
use time::OffsetDateTime;

use super::Files;

/// How long it is valid: some systems refuse what is valid for longer.
const VALID: Duration = Duration::from_secs(825 * 24 * 60 * 60);
/// It is made anew when less than this is left.
const LEFT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Makes the files unless they are there and last.
pub(super) fn keep(files: &Files, names: &[String]) -> io::Result<()> {
    if files.key.exists() && lasts(&files.certificate) {
        return Ok(());
    }
    let folder = files.certificate.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let (certificate, key) = make(names).map_err(io::Error::other)?;
    write(&files.key, &key, 0o600)?;
    write(&files.certificate, &certificate, 0o644)?;
    tracing::info!(
        file = %files.certificate.display(),
        "no certificate is configured: weir has made one, signed by itself, for {}",
        names.join(", ")
    );
    Ok(())
}

/// Whether a certificate made here is valid for a while; when it was made is when its file was written.
fn lasts(certificate: &Path) -> bool {
    let made = std::fs::metadata(certificate).and_then(|facts| facts.modified());
    made.is_ok_and(|made| SystemTime::now().duration_since(made).unwrap_or_default() < VALID - LEFT)
}

fn make(names: &[String]) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::new(names)?;
    let now = OffsetDateTime::now_utc();
    // Clocks differ.
    parameters.not_before = now - Duration::from_secs(60 * 60);
    parameters.not_after = now + VALID;
    let name = names.first().map_or("weir", String::as_str);
    parameters.distinguished_name.push(DnType::CommonName, name);
    let certificate = parameters.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Writes a file in one piece, for those whom `mode` lets read it.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let draft = path.with_extension("tmp");
    let _ = std::fs::remove_file(&draft);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn it_is_made_once_and_again_before_it_expires() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::own(folder.path(), &["localhost".to_owned(), "::1".to_owned()]).unwrap();
        let read = || std::fs::read_to_string(&files.certificate).unwrap();
        let first = read();
        assert_eq!(std::fs::metadata(&files.key).unwrap().permissions().mode() & 0o777, 0o600);
        Files::own(folder.path(), &["localhost".to_owned()]).unwrap();
        assert_eq!(read(), first);
        let old = SystemTime::now() - (VALID - LEFT) - Duration::from_secs(1);
        std::fs::File::options().write(true).open(&files.certificate).unwrap().set_modified(old).unwrap();
        Files::own(folder.path(), &["localhost".to_owned()]).unwrap();
        assert_ne!(read(), first);
    }
}
