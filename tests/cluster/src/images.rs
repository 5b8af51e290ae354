//! The images that pods of a test can run: the programs under test as all other suites run them, and an app.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::archive::{self, Image};
use crate::binaries;

/// What holds the namespaces of a pod; the same image as [`APP`].
pub const PAUSE: &str = "localhost/pause:1";
/// `wal-app`: appends numbered entries, counts what is there; does nothing when not told to (`pause`).
pub const APP: &str = "localhost/wal-app:1";
/// The product: the operator, the sidecar and `walctl`.
pub const WALSTORAGE: &str = concat!("localhost/walstorage:", env!("CARGO_PKG_VERSION"));

/// A shell with the usual small programs, those of this machine.
pub const SHELL: &str = "localhost/shell:1";

const OF_SHELL: [&str; 13] =
    ["cat", "chmod", "dd", "df", "getent", "id", "ls", "mkdir", "rm", "sleep", "stat", "sync", "touch"];

/// Archives of all images, the one with [`PAUSE`] first; made anew where a program is newer.
///
/// # Errors
/// When one cannot be made.
pub fn all() -> Result<Vec<PathBuf>> {
    Ok(vec![
        image(
            "wal-app",
            &Image {
                references: &[PAUSE, APP],
                entrypoint: &["/wal-app"],
                arguments: &["pause"],
                programs: &[of("wal-app", "/wal-app")],
            },
        )?,
        walstorage()?,
        shell()?,
    ])
}

/// The archive that `WALSTORAGE_IMAGE` names, which is the one to ship; else one of the programs that are built.
fn walstorage() -> Result<PathBuf> {
    if let Some(archive) = std::env::var_os("WALSTORAGE_IMAGE") {
        return Ok(archive.into());
    }
    image(
        "walstorage",
        &Image {
            references: &[WALSTORAGE],
            entrypoint: &["/walstorage-sidecar"],
            arguments: &[],
            programs: &[
                of("walstorage-operator", "/walstorage-operator"),
                of("walstorage-sidecar", "/walstorage-sidecar"),
                of("walctl", "/walctl"),
            ],
        },
    )
}

fn of(name: &'static str, path: &'static str) -> (PathBuf, &'static str) {
    (binaries::program(name), path)
}

fn shell() -> Result<PathBuf> {
    let paths: Vec<String> = ["sh"].iter().chain(&OF_SHELL).map(|name| format!("/bin/{name}")).collect();
    let programs: Vec<_> = paths
        .iter()
        .map(|path| Ok((std::fs::canonicalize(path).with_context(|| path.clone())?, path.as_str())))
        .collect::<Result<_>>()?;
    image(
        "shell",
        &Image {
            references: &[SHELL],
            entrypoint: &["/bin/sh", "-c"],
            arguments: &["sleep infinity"],
            programs: &programs,
        },
    )
}

fn image(name: &str, image: &Image<'_>) -> Result<PathBuf> {
    let archive = binaries::clusters().join(format!("image-{name}.tar"));
    let made = archive.metadata().and_then(|it| it.modified()).ok();
    let mut newest = std::env::current_exe()?.metadata()?.modified().ok();
    for (program, _) in image.programs {
        let changed = program.metadata().with_context(|| format!("{}", program.display()))?.modified().ok();
        newest = newest.max(changed);
    }
    if made <= newest {
        archive::write(image, &archive).with_context(|| format!("cannot make the image {name}"))?;
    }
    Ok(archive)
}
