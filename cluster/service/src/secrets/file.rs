//! Reading and making the file.
//! Invariant: the name `secrets.toml` appears only once the whole content is on disk, and is never replaced,
//! so that of two processes that start together both use what the first one linked.
//! No error carries a line of the file, since the line may hold a secret.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};

use super::{Secret, Secrets};
use crate::private;

pub const FILE_NAME: &str = "secrets.toml";

const COMMENT: &str = "\
# The credentials of this cluster, made on its first start. Keep this file private.
# Every host of the cluster needs the same one: copy it there before the first start.
";

/// Reads the secrets of this data folder; makes them first if there are none.
pub fn load_or_create(data: &Path) -> anyhow::Result<Secrets> {
    if !data
        .join(FILE_NAME)
        .try_exists()
        .context("look for the secrets")?
    {
        create(data)?;
    }
    load(data)
}

/// Reads the secrets of this data folder.
pub fn load(data: &Path) -> anyhow::Result<Secrets> {
    let path = data.join(FILE_NAME);
    let shown = path.display();
    let mut file = File::open(&path).with_context(|| {
        format!("open {shown} (the first start makes it; a further host needs a copy of it)")
    })?;
    // The open file is asked, not the name, so that it cannot be exchanged in between.
    let mode = file
        .metadata()
        .with_context(|| format!("inspect {shown}"))?
        .mode()
        & 0o777;
    if mode & 0o077 != 0 {
        bail!("{shown} can be read by others (mode {mode:04o}); run: chmod 600 {shown}");
    }
    let mut text = String::new();
    file.read_to_string(&mut text)
        .with_context(|| format!("read {shown}"))?;
    let secrets: Secrets = toml::from_str(&text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(start).filter(|byte| *byte == b'\n').count();
        anyhow!("{shown}:{line}: {}", what_is_wrong(error.message()))
    })?;
    secrets.check().with_context(|| format!("check {shown}"))?;
    Ok(secrets)
}

/// A wrong type is told with the value that was found, which may be a secret without its quotes.
fn what_is_wrong(message: &str) -> &str {
    if message.starts_with("missing field") {
        message
    } else {
        "this is not `name = \"value\"` as this file needs it"
    }
}

fn create(data: &Path) -> anyhow::Result<()> {
    let shown = data.display();
    if !data.is_dir() {
        private::make_folder(data).with_context(|| format!("create the folder {shown}"))?;
    }
    let secrets = Secrets::generate()?;
    let text = toml::to_string(&secrets).context("write the secrets as TOML")?;
    let unique = Secret::random()?;
    let unfinished = data.join(format!("{FILE_NAME}.{}.tmp", &unique.expose()[..16]));
    write_whole(&unfinished, &text).with_context(|| format!("write secrets in {shown}"))?;
    let linked = std::fs::hard_link(&unfinished, data.join(FILE_NAME));
    std::fs::remove_file(&unfinished).with_context(|| format!("tidy up in {shown}"))?;
    match linked {
        Ok(()) => tracing::info!(folder = %shown, "made new secrets"),
        // Another process was first; its secrets hold.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).with_context(|| format!("link the secrets in {shown}")),
    }
    // The name must survive a power loss before anybody acts on what it names.
    let folder = File::open(data).with_context(|| format!("open the folder {shown}"))?;
    folder
        .sync_all()
        .with_context(|| format!("sync the folder {shown}"))
}

fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(COMMENT.as_bytes())?;
    file.write_all(text.as_bytes())?;
    // A link to content that is not on disk yet could name an empty file after a power loss.
    file.sync_all()
}
