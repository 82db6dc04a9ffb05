//! “There is one administrator”: a right is given through one node and taken through another, and two who administer
//! change the same setting without knowing of each other.

use kvstore_client::wire::tokens::{Access, Rule};
use kvstore_client::{Error, KvClient, PutOptions};

use super::ground::Ground;
use super::told::Told;
use crate::arena::SERVERS;

const PREFIX: &str = "fallacies/administrator/";
const NAME: &str = "clerk";

pub(super) async fn play(ground: &mut Ground, told: &mut Told<'_>) -> anyhow::Result<()> {
    let (ada, ben) = (ground.only(0)?, ground.only(1)?);
    told.say("Ada administers at n1 and gives a clerk the right to write. The clerk writes at every node.");
    let rules = |access| {
        vec![Rule {
            prefix: PREFIX.to_owned(),
            access,
        }]
    };
    let token = ada.token_put(NAME, rules(Access::Write)).await?.token;
    let mut clerks = Vec::new();
    for node in 0..SERVERS {
        clerks.push(ground.as_somebody(node, &token)?);
    }
    let outcomes = writes(&clerks).await;
    told.claim(
        outcomes.iter().all(|outcome| outcome == "done"),
        format_args!("at once and everywhere the clerk may: {}", outcomes.join(", ")),
    );
    told.say("Ben administers at n2 and takes the clerk's token away. As soon as Ben has his answer, the clerk tries again.");
    ben.token_delete(NAME).await?;
    let outcomes = writes(&clerks).await;
    told.claim(
        outcomes.iter().all(|outcome| outcome == "unauthorized"),
        format_args!(
            "at once and everywhere the clerk may no longer: {}",
            outcomes.join(", ")
        ),
    );
    let mut reads = 0;
    for clerk in &clerks {
        let read = clerk.get(&format!("{PREFIX}0")).await;
        reads += usize::from(matches!(read, Err(Error::Unauthorized(_))));
    }
    told.claim(
        reads == SERVERS,
        format_args!("nor read: refused at {reads} of {SERVERS} nodes"),
    );
    same_setting(&ada, &ben, told).await
}

/// How a write ended at each node.
async fn writes(clerks: &[KvClient]) -> Vec<String> {
    let mut outcomes = Vec::new();
    for (n, clerk) in clerks.iter().enumerate() {
        outcomes.push(match clerk.put(&format!("{PREFIX}{n}"), "by the clerk").await {
            Ok(_) => "done".to_owned(),
            Err(Error::Unauthorized(_)) => "unauthorized".to_owned(),
            Err(error) => error.code().to_owned(),
        });
    }
    outcomes
}

async fn same_setting(ada: &KvClient, ben: &KvClient, told: &mut Told<'_>) -> anyhow::Result<()> {
    let key = format!("{PREFIX}opening-hours");
    told.say("Both look at one setting, and both change what they saw.");
    let seen = ada.put(&key, "9 to 5").await?.revision;
    let if_seen = |revision| PutOptions {
        if_match: Some(revision),
        ..PutOptions::default()
    };
    ada.put_with(&key, "9 to 6", if_seen(seen)).await?;
    let present = match ben.put_with(&key, "8 to 5", if_seen(seen)).await {
        Err(Error::Conflict { revision, .. }) => revision,
        _ => None,
    };
    let kept = ben.get(&key).await?.map(|found| found.bytes());
    told.claim(
        present.is_some() && kept.as_deref() == Some(b"9 to 6".as_slice()),
        "who came second is told that it has changed, and Ada's change is not lost unseen",
    );
    let (Some(present), merged) = (present, "8 to 6") else {
        return Ok(());
    };
    ben.put_with(&key, merged, if_seen(present)).await?;
    let kept = ada.get(&key).await?.map(|found| found.bytes());
    told.claim(
        kept.as_deref() == Some(merged.as_bytes()),
        "having looked again, Ben adds his own: 8 to 6",
    );
    Ok(())
}
