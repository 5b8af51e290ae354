//! Programs run to their end: `walctl`, `walstorage-sidecar`, `curl`.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a program did.
#[derive(Debug)]
pub struct Output {
    /// Its exit code; -1 after a signal.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output of a program that must have succeeded.
    #[allow(clippy::must_use_candidate, reason = "called for its assertion too")]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }
}

/// Runs a program with `input` as standard input.
pub fn run<A: AsRef<OsStr>>(program: impl AsRef<Path>, arguments: impl IntoIterator<Item = A>, input: &[u8]) -> Output {
    let mut child = Command::new(program.as_ref())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program.as_ref().display()));
    let mut stdin = child.stdin.take().expect("its input");
    let output = std::thread::scope(|scope| {
        // A program may end without reading all: the broken pipe is not what a test is about.
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output()
    })
    .expect("its end");
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs `walctl` against a socket.
pub fn walctl<'a>(socket: &Path, arguments: impl IntoIterator<Item = &'a str>, input: &[u8]) -> Output {
    let socket = socket.to_str().expect("a path of text").to_owned();
    let all = ["--socket".to_owned(), socket].into_iter().chain(arguments.into_iter().map(ToOwned::to_owned));
    run(super::binaries::walctl(), all, input)
}
