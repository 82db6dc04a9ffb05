//! `kv status`: every member of the cluster by its own word.
//! Invariant: a member that does not answer is shown as such, and does not keep the others from being shown.

use futures_util::future::join_all;
use kvstore_client::wire::cluster::{Member, NodeStatus};
use serde_json::json;

use super::{Session, show};

pub(super) async fn run(session: &Session) -> anyhow::Result<()> {
    let cluster = session.client.cluster().await?;
    let asked = cluster
        .members
        .iter()
        .map(async |member| (member, ask(session, member).await));
    let members = join_all(asked).await;
    if session.output.json {
        let nodes: Vec<_> = members
            .iter()
            .map(|(member, status)| match status {
                Some(status) => json!(status),
                None => json!({ "id": member.id, "name": member.name, "role": "unreachable" }),
            })
            .collect();
        let document = json!({
            "cluster_id": cluster.cluster_id, "leader": cluster.leader, "term": cluster.term, "nodes": nodes,
        });
        return Ok(session.output.document(&document)?);
    }
    let header = [
        "NODE",
        "ROLE",
        "TERM",
        "APPLIED",
        "REVISION",
        "COMPACTED",
        "SIZE",
        "UP",
        "ADDRESS",
    ];
    session.output.table(
        header,
        members.into_iter().map(|(member, status)| row(member, status)),
    )?;
    Ok(())
}

async fn ask(session: &Session, member: &Member) -> Option<NodeStatus> {
    session
        .client_of(&member.address)
        .ok()?
        .with_deadline(ASK_DEADLINE)
        .status()
        .await
        .ok()
}

const ASK_DEADLINE: std::time::Duration = std::time::Duration::from_secs(1);

fn row(member: &Member, status: Option<NodeStatus>) -> [String; 9] {
    let name = member.name.clone();
    let Some(status) = status else {
        let dash = || "-".to_owned();
        let gone = "unreachable".to_owned();
        return [
            name,
            gone,
            dash(),
            dash(),
            dash(),
            dash(),
            dash(),
            dash(),
            member.address.clone(),
        ];
    };
    [
        name,
        status.role.to_string(),
        status.term.to_string(),
        status.applied.to_string(),
        status.revision.to_string(),
        status.compacted_revision.to_string(),
        show::bytes(status.db_bytes),
        show::duration(status.uptime_ms),
        member.address.clone(),
    ]
}
