//! Who this node is: its number, the name of its disk, and the cluster it belongs to.
//!
//! The disk's name is drawn at random on the first start. A number that comes back with another disk
//! has forgotten what it voted and acknowledged, so the others refuse it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::storage::files;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    id: u64,
    disk: String,
    cluster_id: Option<String>,
    /// How often this node was started, as its log has counted too.
    #[serde(default)]
    starts: u64,
}

#[derive(Debug)]
pub struct Identity {
    path: PathBuf,
    stored: Mutex<Stored>,
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("read or write this node's identity")]
    Io(#[from] io::Error),
    #[error("this folder belongs to node {found}, but node {wanted} was started on it")]
    OtherNode { found: u64, wanted: u64 },
    #[error("this node belongs to cluster {mine}, not to {theirs}")]
    OtherCluster { mine: String, theirs: String },
    #[error("this node's identity is damaged: it says that the node was started {0} times")]
    Damaged(u64),
}

const POISON: &str = "no holder of the identity panics";

/// Random text that nobody else has drawn.
pub fn random_name() -> String {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    format!("{:032x}", u128::from_be_bytes(bytes))
}

/// Whether a name was made like that, and not told by a user.
pub fn is_random_name(name: &str) -> bool {
    name.len() == 32
        && name
            .bytes()
            .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

impl Identity {
    pub fn load_or_create(folder: &Path, id: u64) -> Result<Self, IdentityError> {
        let path = folder.join("identity.json");
        let stored = if let Some(content) = files::read_if_present(&path)? {
            serde_json::from_slice(&content).map_err(io::Error::from)?
        } else {
            let stored = Stored {
                id,
                disk: random_name(),
                cluster_id: None,
                starts: 0,
            };
            files::write_atomically(
                &path,
                &serde_json::to_vec_pretty(&stored).map_err(io::Error::from)?,
            )?;
            stored
        };
        if stored.id != id {
            return Err(IdentityError::OtherNode {
                found: stored.id,
                wanted: id,
            });
        }
        // Nobody has counted so far, and this start has to be counted too.
        if stored.starts == u64::MAX {
            return Err(IdentityError::Damaged(stored.starts));
        }
        Ok(Self {
            path,
            stored: Mutex::new(stored),
        })
    }

    /// What a folder says that is only looked at; `None` where it says nothing.
    pub fn of(folder: &Path) -> Result<Option<Self>, IdentityError> {
        let path = folder.join("identity.json");
        let Some(content) = files::read_if_present(&path)? else {
            return Ok(None);
        };
        let stored: Stored = serde_json::from_slice(&content).map_err(io::Error::from)?;
        Ok(Some(Self {
            path,
            stored: Mutex::new(stored),
        }))
    }

    pub fn id(&self) -> u64 {
        self.stored.lock().expect(POISON).id
    }

    pub fn disk(&self) -> String {
        self.stored.lock().expect(POISON).disk.clone()
    }

    pub fn cluster_id(&self) -> Option<String> {
        self.stored.lock().expect(POISON).cluster_id.clone()
    }

    pub fn starts(&self) -> u64 {
        self.stored.lock().expect(POISON).starts
    }

    /// Called once the log has counted this start.
    pub fn count_start(&self) -> Result<(), IdentityError> {
        let mut stored = self.stored.lock().expect(POISON);
        let starts = stored.starts + 1;
        self.replace(&mut stored, |stored| stored.starts = starts)
    }

    fn replace(&self, stored: &mut Stored, change: impl FnOnce(&mut Stored)) -> Result<(), IdentityError> {
        let mut changed = stored.clone();
        change(&mut changed);
        let encoded = serde_json::to_vec_pretty(&changed).map_err(io::Error::from)?;
        files::write_atomically(&self.path, &encoded)?;
        *stored = changed;
        Ok(())
    }

    /// Joins a cluster for good; durable before it returns.
    pub fn adopt_cluster(&self, cluster_id: &str) -> Result<(), IdentityError> {
        let mut stored = self.stored.lock().expect(POISON);
        match &stored.cluster_id {
            Some(mine) if mine == cluster_id => Ok(()),
            Some(mine) => Err(IdentityError::OtherCluster {
                mine: mine.clone(),
                theirs: cluster_id.to_owned(),
            }),
            None => self.replace(&mut stored, |stored| {
                stored.cluster_id = Some(cluster_id.to_owned());
            }),
        }
    }
}
