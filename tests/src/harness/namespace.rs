//! Mounts of a test's own: a mount namespace in which file systems are small, read-only or absent, without touching the
//! machine's. Needs no root where user namespaces are allowed.
//!
//! Its mounts end with the last process in it, and the one that holds it ends with the test, however that ends.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

/// A mount namespace, alive as long as one of its clones.
#[derive(Clone)]
pub struct Namespace {
    holder: Arc<Holder>,
    /// With a user namespace of its own, in which it is root.
    user: bool,
}

/// The process that keeps it alive: a shell that waits for its input to end.
struct Holder(Child);

impl Namespace {
    /// Makes a namespace and runs `script` (of `sh`) in it as its root.
    ///
    /// # Errors
    /// The reason, where this machine does not allow it.
    pub fn new(script: &str) -> Result<Self, String> {
        Self::unshare(&["--user", "--map-root-user"], script)
    }

    /// Makes a namespace with all powers over devices, which only root can.
    ///
    /// # Errors
    /// The reason, where this machine does not allow it.
    pub fn of_root() -> Result<Self, String> {
        Self::unshare(&[], "")
    }

    fn unshare(user: &[&str], script: &str) -> Result<Self, String> {
        let mut holder = Command::new("unshare")
            .args(user)
            .args(["--mount", "sh", "-c"])
            .arg(format!("{script}\necho mounted\nread end"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let mut said = String::new();
        let output = holder.stdout.take().ok_or("no output")?;
        BufReader::new(output).read_line(&mut said).map_err(|error| error.to_string())?;
        let holder = Holder(holder);
        if said != "mounted\n" {
            return Err(holder.complaint());
        }
        Ok(Self { holder: Arc::new(holder), user: !user.is_empty() })
    }

    fn id(&self) -> u32 {
        self.holder.0.id()
    }

    /// A command for `program` that runs in the namespace, as the same process that is spawned.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        if self.user {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.args(["--mount", "--target"]).arg(self.id().to_string()).arg("--").arg(program);
        command
    }

    /// Where a path of the namespace can be reached from outside.
    #[must_use]
    pub fn path(&self, inside: &Path) -> PathBuf {
        let root = format!("/proc/{}/root", self.id());
        Path::new(&root).join(inside.strip_prefix("/").expect("an absolute path"))
    }

    /// Runs a script in the namespace.
    pub fn sh(&self, script: &str) {
        let status = self.command(Path::new("sh")).arg("-c").arg(script).status().expect("nsenter runs");
        assert!(status.success(), "{script}");
    }
}

impl Holder {
    fn complaint(mut self) -> String {
        let mut text = String::new();
        let _ = self.0.kill();
        if let Some(mut stderr) = self.0.stderr.take() {
            let _ = std::io::Read::read_to_string(&mut stderr, &mut text);
        }
        format!("no mount namespace: {}", text.trim())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.0.stdin.take() {
            let _ = stdin.write_all(b"\n");
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_mounts_of_its_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        let namespace = match Namespace::new(&format!("mount -t tmpfs -o size=1m none {}", path.display())) {
            Ok(namespace) => namespace,
            Err(why) => return crate::harness::skip::skipped("a_namespace_has_mounts_of_its_own", &why),
        };
        std::fs::write(namespace.path(path).join("inside"), "x").expect("written through /proc");
        assert!(!path.join("inside").exists(), "the mount is not seen outside");
        namespace.sh(&format!("test -f {}/inside", path.display()));
        let full = std::fs::write(namespace.path(path).join("large"), vec![1; 2 << 20]);
        assert_eq!(full.expect_err("it is full").kind(), std::io::ErrorKind::StorageFull);
    }
}
