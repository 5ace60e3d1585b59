//! Keys of every kind, good and bad.

use std::fs;
use std::io::{Read as _, Write as _};

use age::secrecy::{ExposeSecret as _, SecretString};

use super::*;

const SSH_PUBLIC: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIn8xy5Aap7G8jWQoNnfZ1dDCuRliTP0GW4KxGxPEcso office@example";
const SSH_SECRET: &str = "-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
QyNTUxOQAAACCJ/McuQGqexvI1kKDZ32dXQwrkZYkz9BluCsRsTxHLKAAAAIjkDcj95A3I
/QAAAAtzc2gtZWQyNTUxOQAAACCJ/McuQGqexvI1kKDZ32dXQwrkZYkz9BluCsRsTxHLKA
AAAEA5hOsHynz+gd4ZPgnPCGUnxCjWm8ux5OrU9Y2JAiALh4n8xy5Aap7G8jWQoNnfZ1dD
CuRliTP0GW4KxGxPEcsoAAAABHRlc3QB
-----END OPENSSH PRIVATE KEY-----
";

fn nobody(_: &str) -> Option<SecretString> {
    None
}

fn new_identity() -> NewIdentity {
    generate_identity("2026-11-22T23:30:04Z".parse().unwrap())
}

fn seal(recipients: &Recipients, content: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::new();
    let mut writer = recipients.new_file().unwrap().wrap_output(&mut sealed).unwrap();
    writer.write_all(content).unwrap();
    writer.finish().unwrap();
    sealed
}

fn open(identities: &Identities, sealed: &[u8]) -> Result<Vec<u8>, age::DecryptError> {
    let mut content = Vec::new();
    identities.open(sealed)?.read_to_end(&mut content).unwrap();
    Ok(content)
}

#[test]
fn each_recipient_opens_what_was_sealed_to_all() {
    let folder = tempfile::tempdir().unwrap();
    let (office, elsewhere, stranger) = (new_identity(), new_identity(), new_identity());
    let recipients = Recipients::parse([&office.recipient, &elsewhere.recipient, SSH_PUBLIC]).unwrap();
    assert_eq!(recipients.iter().map(Recipient::kind).collect::<Vec<_>>(), ["x25519", "x25519", "ssh"]);
    let sealed = seal(&recipients, b"ledger");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let paths = [
        file("office", office.file.expose_secret()),
        file("elsewhere", elsewhere.file.expose_secret()),
        file("ssh", SSH_SECRET),
    ];
    for path in &paths {
        let identities = Identities::load([path], &nobody).unwrap();
        assert_eq!(open(&identities, &sealed).unwrap(), b"ledger");
    }
    let stranger = Identities::load([file("stranger", stranger.file.expose_secret())], &nobody).unwrap();
    assert!(matches!(open(&stranger, &sealed), Err(age::DecryptError::NoMatchingKeys)));
    let all = Identities::load(&paths, &nobody).unwrap();
    assert_eq!(all.count(), 3);
    assert!(all.recipients().contains(&office.recipient));
    assert!(all.recipients().iter().any(|text| SSH_PUBLIC.starts_with(text)));
}

#[test]
fn a_passphrase_is_asked_for_once_when_the_file_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let identity = new_identity();
    let path = folder.path().join("protected");
    fs::write(&path, protect(&identity, SecretString::from("correct horse")).unwrap()).unwrap();
    let right = |_: &str| Some(SecretString::from("correct horse"));
    let wrong = |_: &str| Some(SecretString::from("wrong horse"));
    let identities = Identities::load([&path], &right).unwrap();
    let sealed = seal(&Recipients::parse([&identity.recipient]).unwrap(), b"x");
    assert_eq!(open(&identities, &sealed).unwrap(), b"x");
    assert!(matches!(Identities::load([&path], &wrong), Err(IdentityError::Locked { .. })));
    assert!(matches!(Identities::load([&path], &nobody), Err(IdentityError::NoPassphrase { .. })));
}

#[test]
fn every_bad_recipient_is_named_and_no_secret_repeated() {
    let identity = new_identity();
    let secret = identity.file.expose_secret().lines().last().unwrap();
    let (rest, last) = identity.recipient.split_at(identity.recipient.len() - 1);
    let damaged = format!("{rest}{}", if last == "q" { "p" } else { "q" });
    let dsa = "ssh-dss AAAAB3NzaC1kc3MAAAAA";
    let errors = Recipients::parse([damaged.as_str(), "hello", secret, dsa]).unwrap_err();
    assert_eq!(errors.len(), 4);
    assert!(matches!(errors[2], RecipientError::Secret));
    assert!(errors.iter().all(|error| !error.to_string().contains(secret)));
    assert!(matches!(Recipients::parse::<&str>([]).unwrap_err()[..], [RecipientError::None]));
    let missing = Recipients::parse(["age1yubikey1q2w7u3vpya839jxxuq8g0sedh3d740d4xvn639sqhr95ejj8vu3hyfumptt"]);
    assert!(matches!(&missing.unwrap_err()[..], [RecipientError::Plugin { plugin, .. }] if plugin == "yubikey"));
}

#[test]
fn a_recipients_file_has_comments_and_repetitions() {
    let identity = new_identity();
    let file = format!("# the office\n\n{0}\n  {0}\n# elsewhere\n{1}\n", identity.recipient, SSH_PUBLIC);
    assert_eq!(Recipients::parse_file(&file).unwrap().count(), 2);
    assert!(matches!(Recipients::parse_file("# none\n").unwrap_err()[..], [RecipientError::None]));
}

#[test]
fn what_is_no_identity_is_refused_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let load = |content: &str| {
        fs::write(&path, content).unwrap();
        Identities::load([&path], &nobody).unwrap_err()
    };
    assert!(matches!(load("# nothing\n"), IdentityError::Empty { .. }));
    let error = load("AGE-SECRET-KEY-1DAMAGED\n");
    assert!(matches!(error, IdentityError::Invalid { .. }));
    assert!(!format!("{error:?}").contains("DAMAGED"));
    let sealed = {
        let mut sealed = Vec::new();
        let recipient: age::x25519::Recipient = new_identity().recipient.parse().unwrap();
        let recipients = std::iter::once(&recipient as &dyn age::Recipient);
        age::Encryptor::with_recipients(recipients).unwrap().wrap_output(&mut sealed).unwrap().finish().unwrap();
        sealed
    };
    fs::write(&path, &sealed).unwrap();
    let never = |_: &str| -> Option<SecretString> { panic!("nobody is asked for a passphrase of what has none") };
    let error = Identities::load([&path], &never).unwrap_err();
    assert!(error.to_string().contains("something that was sealed"), "{error}");
    for (content, what) in [
        ("# public key\nage1xyz\n", "the public half of one (a recipient)"),
        ("ssh-ed25519 AAAA someone@office\n", "the file of the same name without `.pub`"),
        ("untrusted comment: offsite signing key of a site\nRWQ\n", "a key or a signature of minisign"),
        ("untrusted comment: signature from a site\nRUQ\ntrusted comment: x\n", "a key or a signature of minisign"),
        ("<html><pre>AGE-SECRET-KEY-1XYZ</pre>", "a page that one may stand on"),
    ] {
        let error = load(content);
        assert!(error.to_string().contains(what), "{error}");
        assert!(!error.to_string().contains("XYZ"), "{error}");
    }
    assert!(matches!(load("-----BEGIN OPENSSH PRIVATE KEY-----\nnone\n"), IdentityError::Invalid { .. }));
    assert!(matches!(load("age-encryption.org/v1\n"), IdentityError::NoPassphrase { .. }));
    assert!(matches!(load(&"#".repeat(2 << 20)), IdentityError::TooLarge { .. }));
    assert!(matches!(Identities::load::<&str>([], &nobody), Err(IdentityError::None)));
    assert!(!format!("{:?}", new_identity()).contains("AGE-SECRET-KEY"));
}
