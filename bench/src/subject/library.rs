//! The engine in the clients' own process.

use tokio::runtime::Runtime;
use walstorage_sidecar::engine::Engine;
use walstorage_tests::harness::{Setup, library};

use super::{Log, Setting};
use crate::ours::KEPT;

pub(crate) struct Library {
    runtime: Runtime,
    engine: Engine,
    collections: Vec<String>,
    _setup: Setup,
}

impl Library {
    pub(crate) fn open(setting: &Setting) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut setup = crate::setup(&setting.folder);
        if let Some(second) = &setting.second {
            setup.urls(&[setup.url("d1"), format!("file://{}", second.display())]);
        }
        let engine = runtime.block_on(library::ready(library::config(&setup)));
        let collections = (0..setting.collections).map(|n| format!("bench-{n}")).collect();
        Ok(Self { runtime, engine, collections, _setup: setup })
    }
}

impl Log for Library {
    fn append(&self, _client: usize, turn: u64, payload: &[u8]) -> anyhow::Result<()> {
        let target = &self.collections[turn as usize % self.collections.len()];
        self.runtime.handle().block_on(self.engine.append(library::batch(target, &[payload]), None))?;
        Ok(())
    }

    fn tidy(&self, all: bool) -> anyhow::Result<()> {
        self.runtime.handle().block_on(async {
            for info in self.engine.list(None, usize::MAX)? {
                if all || info.durable_head.0 - info.truncated_to.0 > KEPT {
                    self.engine.truncate(&info.name, info.durable_head).await?;
                }
            }
            Ok(())
        })
    }
}
