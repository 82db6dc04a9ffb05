//! `menagerie kv`: the store from the command line, one file a subcommand.
//! Invariant: everything goes through `KvClient`, as any other program's calls do; nothing here knows HTTP.

pub(crate) mod backup;
mod compact;
mod del;
mod explain;
mod get;
mod hash;
mod hold;
mod input;
mod lease;
mod ls;
mod member;
mod mirror;
mod put;
pub(crate) mod reach;
mod recover;
mod replace;
mod show;
mod status;
mod token;
mod txn;
mod watch;

use clap::{Args, Subcommand};
use kvstore_client::KvClient;

use crate::context::{Context, block_on};
use crate::output::Output;

#[derive(Args)]
pub(crate) struct Kv {
    #[command(flatten)]
    reach: reach::Reach,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the value of a key
    Get(get::Get),
    /// Store a value under a key
    Put(put::Put),
    /// Store a value under a new key that the store makes
    Create(put::Create),
    /// Delete a key, or all keys below a prefix
    Del(del::Del),
    /// List keys
    Ls(ls::Ls),
    /// Print every change as it happens
    Watch(watch::Watch),
    /// Run a transaction given as JSON
    Txn(txn::Txn),
    /// Leases: keys that vanish unless someone keeps them alive
    #[command(subcommand)]
    Lease(lease::Lease),
    /// Who belongs to the cluster
    #[command(subcommand)]
    Member(member::Member),
    /// Show who leads, or hand leadership over
    Leader(member::Leader),
    /// Mirrors: second copies, for which writes may wait
    #[command(subcommand)]
    Mirror(mirror::Mirror),
    /// Drop the history before a revision
    Compact(compact::Compact),
    /// A hash over all keys: equal on all nodes at the same revision
    Hash(hash::Hash),
    /// Write everything at one revision into a file, while writes go on
    Snapshot(backup::Snapshot),
    /// Check a file that `snapshot` made
    Verify(backup::Verify),
    /// Make the data folders of a new cluster from such a file
    Restore(backup::Restore),
    /// Make a new cluster from what is left of one that has lost its majority for good
    Recover(recover::Recover),
    /// Show the state of every node
    Status,
    /// Access tokens and what they may read and write
    #[command(subcommand)]
    Token(token::Token),
}

impl Command {
    /// Whether it sends anything that could be done twice.
    fn writes_to_the_store(&self) -> bool {
        match self {
            Self::Get(_)
            | Self::Ls(_)
            | Self::Watch(_)
            | Self::Hash(_)
            | Self::Status
            | Self::Snapshot(_)
            | Self::Verify(_)
            | Self::Restore(_)
            | Self::Recover(_)
            | Self::Lease(lease::Lease::Get { .. } | lease::Lease::Ls)
            | Self::Member(member::Member::Ls)
            | Self::Mirror(mirror::Mirror::Ls)
            | Self::Token(token::Token::Ls) => false,
            Self::Leader(leader) => leader.to.is_some(),
            Self::Put(_)
            | Self::Create(_)
            | Self::Del(_)
            | Self::Txn(_)
            | Self::Compact(_)
            | Self::Lease(_)
            | Self::Member(_)
            | Self::Mirror(_)
            | Self::Token(_) => true,
        }
    }
}

impl Kv {
    /// Whether it reads and writes files alone, also where there is no store to be reached.
    pub(crate) fn works_on_files(&self) -> bool {
        matches!(
            self.command,
            Command::Verify(_) | Command::Restore(_) | Command::Recover(_)
        )
    }
}

/// What every subcommand gets.
pub(super) struct Session {
    client: KvClient,
    endpoints: Vec<String>,
    reach: reach::Reach,
    token: String,
    output: Output,
}

impl Kv {
    pub(crate) fn run(self, context: Context) -> anyhow::Result<()> {
        if !self.command.writes_to_the_store() {
            self.reach.refuse_key("nothing is written to the store")?;
        }
        // What `works_on_files` tells needs no session.
        match &self.command {
            Command::Verify(verify) => return verify.run(context.output),
            Command::Restore(restore) => return restore.run(&context),
            Command::Recover(recover) => return recover.run(&context),
            _ => {}
        }
        let session = Session::open(&context, self.reach)?;
        let endpoints = session.endpoints.clone();
        let result = block_on(async {
            match self.command {
                Command::Get(get) => get.run(&session).await,
                Command::Put(put) => put.run(&session).await,
                Command::Create(create) => create.run(&session).await,
                Command::Del(del) => del.run(&session).await,
                Command::Ls(ls) => ls.run(&session).await,
                Command::Watch(watch) => watch.run(&session).await,
                Command::Txn(txn) => txn.run(&session).await,
                Command::Lease(lease) => lease.run(&session).await,
                Command::Member(member) => member.run(&session).await,
                Command::Mirror(mirror) => mirror.run(&session).await,
                Command::Leader(leader) => leader.run(&session).await,
                Command::Compact(compact) => compact.run(&session).await,
                Command::Hash(hash) => hash.run(&session).await,
                Command::Snapshot(snapshot) => snapshot.run(&session).await,
                Command::Verify(_) | Command::Restore(_) | Command::Recover(_) => Ok(()),
                Command::Status => status::run(&session).await,
                Command::Token(token) => token.run(&session).await,
            }
        });
        result.map_err(|error| explain::explain(error, &endpoints))
    }
}
