//! `fuotad firmware keygen`, `sign` and `verify`: offline, with files alone, in minisign's formats.
//!
//! Signatures are made by the `minisign` crate and checked by the store's own reader: each is the
//! other's test.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context as _, anyhow, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use minisign::{KeyPair, SecretKey, SecretKeyBox};
use store::{Comment, PublicKey, Signature};

use super::output;
use crate::config::Config;

/// What to sign, and with what.
#[derive(Debug, clap::Args)]
pub struct SignArgs {
    /// The firmware file
    file: PathBuf,
    /// The secret key, of `fuotad firmware keygen` or `minisign -G`
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// File with the key's password, or - for the standard input; it is asked for otherwise
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// The title, which then counts more than file name, image and sidecar
    #[arg(long, value_name = "NAME")]
    title: Option<String>,
    /// The version, likewise
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// The model that it is for, likewise
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Where to write the signature [default: FILE.minisig]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What to verify, and with what.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// The firmware file
    file: PathBuf,
    /// A public key; several may be named [default: store.trusted_keys]
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// The signature [default: FILE.minisig]
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
}

/// Where to write the keys.
#[derive(Debug, clap::Args)]
pub struct KeygenArgs {
    /// The secret key goes to NAME.key, the public one to NAME.pub
    name: PathBuf,
    /// File with the password of the secret key, or - for the standard input; it is asked for
    /// otherwise
    #[arg(long, value_name = "FILE", conflicts_with = "no_password")]
    password_file: Option<PathBuf>,
    /// Leave the secret key without a password: whoever reads the file can sign
    #[arg(long)]
    no_password: bool,
}

/// Makes a pair of keys. Existing files stay.
pub fn keygen(args: &KeygenArgs) -> anyhow::Result<()> {
    let beside = |ending: &str| {
        let mut name = args.name.clone().into_os_string();
        name.push(ending);
        PathBuf::from(name)
    };
    let (secret, public) = (beside(".key"), beside(".pub"));
    for path in [&secret, &public] {
        if path.exists() {
            bail!("{} is there already: choose another name", path.display());
        }
    }
    let asks = !args.no_password && args.password_file.is_none();
    if asks && std::fs::File::open("/dev/tty").is_err() {
        bail!("there is no terminal to ask for a password: use --password-file or --no-password");
    }
    let pair = if args.no_password {
        KeyPair::generate_unencrypted_keypair()
    } else {
        KeyPair::generate_encrypted_keypair(password(args.password_file.as_deref())?)
    };
    let pair = pair.map_err(|error| anyhow!("no keys were made: {error}"))?;
    let text = pair.sk.to_box(None).map(SecretKeyBox::into_string);
    write_new(&secret, &text.map_err(|error| anyhow!("no keys were made: {error}"))?, 0o600)?;
    let text = pair.pk.to_box().map(minisign::PublicKeyBox::into_string);
    write_new(&public, &text.map_err(|error| anyhow!("no keys were made: {error}"))?, 0o644)?;
    output::text(&format!(
        "{} signs: keep it away from the broker\n{} goes into store.trusted_keys\n",
        secret.display(),
        public.display()
    ))
}

fn write_new(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    let written = options.open(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.write_all(if text.ends_with('\n') { b"" } else { b"\n" })
    });
    written.with_context(|| format!("{} cannot be written", path.display()))
}

/// Signs a file.
pub fn sign(args: &SignArgs) -> anyhow::Result<()> {
    let comment = trusted_comment(args)?;
    let key = secret_key(&args.key, args.password_file.as_deref())?;
    let file = open(&args.file)?;
    let signed = minisign::sign(None, &key, BufReader::new(file), Some(&comment), None);
    let signed =
        signed.map_err(|error| anyhow!("{} was not signed: {error}", args.file.display()))?;
    let out = args.out.clone().unwrap_or_else(|| signature_of(&args.file));
    // Whole or not at all: the broker may be looking.
    let mut temporary = out.clone().into_os_string();
    temporary.push(".tmp");
    fs::write(&temporary, signed.into_string())
        .and_then(|()| fs::rename(&temporary, &out))
        .with_context(|| format!("{} cannot be written", out.display()))?;
    output::text(&format!("{}\n", out.display()))
}

fn trusted_comment(args: &SignArgs) -> anyhow::Result<String> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let name = args.file.file_name().unwrap_or_default().to_string_lossy();
    let mut fields = vec![format!("timestamp:{}", now.as_secs()), format!("file:{name}")];
    let said = [("title", &args.title), ("version", &args.version), ("model", &args.model)];
    for (field, value) in said {
        fields.extend(value.as_ref().map(|value| format!("{field}:{value}")));
    }
    fields.push("hashed".into());
    let comment = fields.join("\t");
    if comment.contains('\n') {
        bail!("the name of the file or a field has a line break");
    }
    // As the broker will read it.
    let read = Comment::parse(&comment).map_err(|why| anyhow!("{why}"))?;
    if [&read.title, &read.version, &read.model] != [&args.title, &args.version, &args.model] {
        bail!("a field has a tab, or spaces around it");
    }
    Ok(comment)
}

fn secret_key(path: &Path, password_file: Option<&Path>) -> anyhow::Result<SecretKey> {
    let text =
        fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let unusable = |error: minisign::PError| anyhow!("{} cannot be used: {error}", path.display());
    // `minisign -W` leaves the checksum of a key without a password empty, which the library would
    // take for damage.
    let bytes = text.lines().nth(1).and_then(|line| BASE64.decode(line.trim()).ok());
    let key = SecretKey::from_bytes(&bytes.unwrap_or_default()).map_err(unusable)?;
    if !key.is_encrypted() {
        return Ok(key);
    }
    let key = SecretKeyBox::from_string(text.trim_end()).map_err(unusable)?;
    key.into_secret_key(password(password_file)?).map_err(unusable)
}

/// The password, if a file is named for it.
fn password(file: Option<&Path>) -> anyhow::Result<Option<String>> {
    let Some(path) = file else { return Ok(None) };
    let mut text = String::new();
    let read = match path.to_str() {
        Some("-") => std::io::stdin().read_to_string(&mut text).map(drop),
        _ => File::open(path).and_then(|mut file| file.read_to_string(&mut text)).map(drop),
    };
    read.with_context(|| format!("the password cannot be read from {}", path.display()))?;
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// Verifies a file, and prints who signed it and what the signature says.
pub fn verify(args: &VerifyArgs, config: Option<&Path>) -> anyhow::Result<()> {
    let path = args.signature.clone().unwrap_or_else(|| signature_of(&args.file));
    let bytes = fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let signature = Signature::parse(&bytes).map_err(|why| anyhow!("{}: {why}", path.display()))?;
    let keys = if args.key.is_empty() {
        Config::load(config)?.store.trust.keys().to_vec()
    } else {
        let read = |path: &PathBuf| {
            let bytes =
                fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
            PublicKey::parse(&bytes).map_err(|why| anyhow!("{}: {why}", path.display()))
        };
        args.key.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?
    };
    let Some(key) = keys.iter().find(|key| key.id() == signature.key()) else {
        bail!("it is signed by key {}, which is none of the {} named", signature.key(), keys.len());
    };
    let matches = signature.verify(key, &mut BufReader::new(open(&args.file)?));
    let matches = matches.with_context(|| format!("{} cannot be read", args.file.display()))?;
    matches.map_err(|why| anyhow!("{}: {why}", args.file.display()))?;
    let comment = Comment::parse(signature.comment())
        .map_err(|why| anyhow!("{}: the trusted comment cannot be used: {why}", path.display()))?;
    let mut text = format!("{} is signed by key {}\n", args.file.display(), signature.key());
    for (name, value) in
        [("title", comment.title), ("version", comment.version), ("model", comment.model)]
    {
        if let Some(value) = value {
            text += &format!("{name}: {}\n", output::safe(&value));
        }
    }
    output::text(&text)
}

fn signature_of(file: &Path) -> PathBuf {
    let mut name = file.to_owned().into_os_string();
    name.push(".minisig");
    name.into()
}

fn open(path: &Path) -> anyhow::Result<File> {
    File::open(path).with_context(|| format!("{} cannot be read", path.display()))
}
