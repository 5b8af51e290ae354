//! The settings that are one of a few names. Names are case-sensitive, as they were in the original configuration.

/// A setting that is one of a few names.
pub(super) trait Choice: Copy + 'static {
    /// Every value, in the order of the documentation.
    const ALL: &'static [Self];

    /// The name in `config.toml`.
    fn name(self) -> &'static str;
}

/// How collections are placed on directories. Default: LoadBalanced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "k8s", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
pub enum DistributionStrategy {
    /// In turn.
    RoundRobin,
    /// Rendezvous hashing.
    Hash,
    /// By measurement.
    #[default]
    LoadBalanced,
}

/// Codec of segments. Default: snappy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "k8s", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
#[cfg_attr(feature = "k8s", serde(rename_all = "lowercase"))]
pub enum Compression {
    /// None.
    Null,
    /// Snappy.
    #[default]
    Snappy,
    /// Zstandard.
    Zstandard,
}

/// What to do about damage found at start: fail = stay not ready and name it, gap = record it as gaps and serve.
/// Default: fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "k8s", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
#[cfg_attr(feature = "k8s", serde(rename_all = "lowercase"))]
pub enum OnDamage {
    /// Stay not ready and name it.
    #[default]
    Fail,
    /// Record it as gaps and serve.
    Gap,
}

/// What to do about a known directory that is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnMissingDirectory {
    /// Stay not ready until it returns or is forgotten.
    #[default]
    Wait,
}

/// How journal files are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum IoMode {
    /// Direct where the file system allows it.
    #[default]
    Auto,
    /// O_DIRECT.
    Direct,
    /// Through the page cache.
    Buffered,
}

impl DistributionStrategy {
    /// The name in `config.toml`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "RoundRobin",
            Self::Hash => "Hash",
            Self::LoadBalanced => "LoadBalanced",
        }
    }
}

impl Choice for DistributionStrategy {
    const ALL: &'static [Self] = &[Self::RoundRobin, Self::Hash, Self::LoadBalanced];

    fn name(self) -> &'static str {
        self.as_str()
    }
}

impl Compression {
    /// The name in `config.toml`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Snappy => "snappy",
            Self::Zstandard => "zstandard",
        }
    }
}

impl Choice for Compression {
    const ALL: &'static [Self] = &[Self::Null, Self::Snappy, Self::Zstandard];

    fn name(self) -> &'static str {
        self.as_str()
    }
}

impl OnDamage {
    /// The name in `config.toml`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Gap => "gap",
        }
    }
}

impl Choice for OnDamage {
    const ALL: &'static [Self] = &[Self::Fail, Self::Gap];

    fn name(self) -> &'static str {
        self.as_str()
    }
}

impl OnMissingDirectory {
    /// The name in `config.toml`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wait => "wait",
        }
    }
}

impl Choice for OnMissingDirectory {
    const ALL: &'static [Self] = &[Self::Wait];

    fn name(self) -> &'static str {
        self.as_str()
    }
}

impl IoMode {
    /// The name in `config.toml`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Direct => "direct",
            Self::Buffered => "buffered",
        }
    }
}

impl Choice for IoMode {
    const ALL: &'static [Self] = &[Self::Auto, Self::Direct, Self::Buffered];

    fn name(self) -> &'static str {
        self.as_str()
    }
}
