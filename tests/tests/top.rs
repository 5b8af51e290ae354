//! `walctl top` against a real sidecar: on a terminal, into a pipe, for programs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::Value;
use walstorage_tests::harness::calls::{append, truncate};
use walstorage_tests::harness::tool::walctl;
use walstorage_tests::harness::{DEADLINE, Setup, Sidecar, binaries, eventually};

fn top(sidecar: &Sidecar, arguments: &[&str]) -> Command {
    let mut command = Command::new(binaries::walctl());
    command.arg("--socket").arg(sidecar.setup.socket()).arg("top").args(arguments);
    command
}

/// Waits for a program's end.
async fn ended(mut child: Child) -> i32 {
    let status = eventually("the end of walctl top", || std::future::ready(child.try_wait().unwrap())).await;
    status.code().unwrap_or(-1)
}

fn interrupt(child: &Child) {
    kill_process(Pid::from_child(child), Signal::INT).unwrap();
}

/// Appends until it is dropped.
struct Load(tokio::task::JoinHandle<()>);

impl Load {
    fn on(sidecar: &Sidecar) -> Self {
        let mut client = sidecar.grpc();
        Self(tokio::spawn(async move {
            loop {
                append(&mut client, "busy", &[b"entry", b"entry"]).await;
            }
        }))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn once_for_programs_gives_rates_status_and_the_busiest_collections() {
    let sidecar = Sidecar::ready(Setup::new(2)).await;
    let mut client = sidecar.grpc();
    append(&mut client, "idle", &[b"one", b"two", b"three"]).await;
    truncate(&mut client, "idle", 1).await;
    append(&mut client, "busy", &[b"one"]).await;
    let _load = Load::on(&sidecar);
    let socket = sidecar.setup.socket();
    let arguments = ["top", "--once", "--interval", "0.5", "--output", "json", "--collections", "1"];
    // A busy machine may store nothing in half a second.
    let view = eventually("entries are stored", || {
        let socket = socket.clone();
        async move {
            let run = tokio::task::spawn_blocking(move || walctl(&socket, arguments, b""));
            let output = run.await.unwrap().ok();
            assert_eq!(output.lines().count(), 1);
            let view: Value = serde_json::from_str(&output).unwrap();
            (view["appendedPerSecond"].as_f64().unwrap() > 0.0).then_some(view)
        }
    })
    .await;
    assert!(view["seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(view["truncatedPerSecond"].as_f64(), Some(0.0));
    assert_eq!(view["status"]["directories"].as_array().unwrap().len(), 2);
    assert_eq!(view["status"]["phase"], "ready");
    let shown: Vec<_> = view["collections"].as_array().unwrap().iter().map(|one| &one["collection"]["name"]).collect();
    assert_eq!(shown, ["busy"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn into_a_pipe_it_prints_a_table_for_each_interval_until_it_is_interrupted() {
    let sidecar = Sidecar::ready(Setup::new(1)).await;
    append(&mut sidecar.grpc(), "c", &[b"one"]).await;
    let mut child = top(&sidecar, &["--interval", "0.1"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (mut directories, mut collections) = (0, 0);
    while directories < 3 || collections < 3 {
        let line = lines.next().expect("another table").unwrap();
        assert!(!line.contains('\x1b'), "no terminal, nothing drawn: {line:?}");
        directories += usize::from(line.starts_with("DIRECTORY"));
        collections += usize::from(line.starts_with("c "));
    }
    interrupt(&child);
    assert_eq!(ended(child).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_nobody_reads_any_more_it_ends() {
    let sidecar = Sidecar::ready(Setup::new(1)).await;
    let mut child = top(&sidecar, &["--interval", "0.1"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("ready"), "{first}");
    assert_eq!(ended(child).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_sidecar_it_fails_and_one_that_goes_away_is_asked_again() {
    let mut sidecar = Sidecar::ready(Setup::new(1)).await;
    let mut child =
        top(&sidecar, &["--interval", "0.1"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("epoch 1"));
    sidecar.stop().await;
    assert!(errors.next().unwrap().unwrap().contains("error"));
    let socket = sidecar.setup.socket();
    let refused = tokio::task::spawn_blocking(move || walctl(&socket, ["top", "--once"], b"")).await.unwrap();
    assert_eq!(refused.code, 1, "{refused:?}");
    let sidecar = Sidecar::ready(std::mem::replace(&mut sidecar.setup, Setup::new(1))).await;
    assert!(lines.any(|line| line.unwrap().contains("epoch 2")));
    interrupt(&child);
    assert_eq!(ended(child).await, 0);
    drop(sidecar);
}

/// A terminal and what was drawn on it.
struct Terminal {
    master: File,
    slave: OwnedFd,
    drawn: mpsc::Receiver<Vec<u8>>,
    text: String,
}

impl Terminal {
    fn open() -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
        let slave = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
        tcsetwinsize(&slave, Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let mut reader = File::from(master.try_clone().unwrap());
        let (sender, drawn) = mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Ends when the test and the program have closed the terminal.
            while let Ok(read @ 1..) = reader.read(&mut bytes) {
                if sender.send(bytes[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { master: File::from(master), slave, drawn, text: String::new() }
    }

    fn stdio(&self) -> Stdio {
        self.slave.try_clone().unwrap().into()
    }

    /// Reads until something was drawn so often.
    fn until(&mut self, what: &str, times: usize) {
        while self.text.matches(what).count() < times {
            let bytes = self.drawn.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("{what:?} in {:?}", self.text));
            self.text.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    fn echoes(&self) -> bool {
        tcgetattr(&self.slave).unwrap().local_modes.contains(LocalModes::ECHO)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_it_draws_in_place_until_q_and_gives_the_terminal_back() {
    for end in ["q", "SIGINT"] {
        let sidecar = Sidecar::ready(Setup::new(1)).await;
        append(&mut sidecar.grpc(), "orders", &[b"one"]).await;
        let mut terminal = Terminal::open();
        assert!(terminal.echoes());
        let mut command = top(&sidecar, &["--interval", "0.1"]);
        let mut child =
            command.stdin(terminal.stdio()).stdout(terminal.stdio()).stderr(terminal.stdio()).spawn().unwrap();
        terminal.until("orders", 3);
        assert!(!terminal.echoes(), "keys are not shown");
        assert!(terminal.text.starts_with("\x1b[?1049h"), "a screen of its own");
        assert!(terminal.text.matches("\x1b[H").count() >= 3, "drawn in place");
        assert!(child.try_wait().unwrap().is_none());
        match end {
            "q" => terminal.master.write_all(b"xq").unwrap(),
            _ => interrupt(&child),
        }
        assert_eq!(ended(child).await, 0);
        terminal.until("\x1b[?1049l", 1);
        assert!(terminal.echoes(), "the terminal is as it was");
    }
}
