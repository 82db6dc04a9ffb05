//! The cluster: who its members are, and changes of them. Changes are for root alone.

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use kvstore_client::wire::cluster::{Cluster, Member, Role as WireRole};
use serde_json::{Map, Value};
use service::config::LimitsConfig;
use service::problem::Result;

use super::auth::Caller;
use super::fields::{Fields, place};
use super::params::{Params, parse_number, segment};
use super::{Api, Shared, once, reply};
use crate::raft::network::message::MemberChange;
use crate::store::{ClusterView, Keyed, MemberView, Role};

const MEMBERS: &str = "/v1/cluster/members/";
/// Larger ids would not survive the JSON numbers of every client.
const ID_MAX: u64 = (1 << 53) - 1;

pub(super) fn wire_role(role: Role) -> WireRole {
    match role {
        Role::Leader => WireRole::Leader,
        Role::Follower => WireRole::Follower,
        Role::Learner => WireRole::Learner,
        Role::Unreachable => WireRole::Unreachable,
    }
}

fn wire_member(member: MemberView) -> Member {
    Member {
        id: member.id,
        name: format!("n{}", member.id),
        address: member.client_address,
        peer_address: member.peer_address,
        role: wire_role(member.role),
        voter: member.voter,
        last_log: member.last_log,
        applied: member.applied,
        lag: member.lag,
    }
}

fn wire_cluster(view: ClusterView) -> Cluster {
    Cluster {
        cluster_id: view.cluster_id.unwrap_or_default(),
        leader: view.leader,
        term: view.term,
        members: view.members.into_iter().map(wire_member).collect(),
    }
}

pub(super) async fn show(State(api): State<Shared>, request: Request) -> Result<Response> {
    let (parts, _body) = request.into_parts();
    let caller = api.caller(&parts.headers).await?;
    let asked = Params::of(&parts.uri).level()?;
    let level = api.own_level(asked).await?;
    caller.present(&api)?;
    let view = api.store.cluster_live().await;
    let revision = view.revision;
    Ok(reply::found(revision, level, &wire_cluster(view)))
}

pub(super) fn id_of(uri: &Uri) -> Result<u64> {
    parse_number(&segment(uri, MEMBERS, "id")?, "id")
}

fn keyed(api: &Api, caller: &Caller, parts: &Parts, body: &[u8]) -> Result<Option<Keyed>> {
    let once = once::once(api, parts, body)?;
    Ok(once.map(|once| Keyed {
        owner: caller.name().to_owned(),
        actor: caller.actor(),
        once,
    }))
}

/// Makes the change and shows the cluster as this node sees it then: with the change, unless it is too long in coming.
async fn changed(
    api: &Api,
    status: StatusCode,
    change: MemberChange,
    keyed: Option<Keyed>,
) -> Result<Response> {
    let changed = api.store.change_members(change, keyed).await;
    let made_before = changed.map_err(reply::member_problem)?;
    let mut response = reply::json(status, &wire_cluster(api.store.cluster()));
    if made_before {
        let replayed = HeaderValue::from_static("true");
        response.headers_mut().insert(reply::REPLAYED, replayed);
    }
    Ok(response)
}

/// `host:port`, as the members and the clients will connect to it.
fn address(fields: &mut Fields<'_>, root: &Map<String, Value>, name: &str) -> String {
    let address = fields.text(root, "", name);
    let sound = address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    if !sound && root.get(name).is_some_and(Value::is_string) {
        fields.fault(place("", name), "must be host:port");
    }
    address.to_owned()
}

/// A member that is to be added.
pub(super) struct NewMember {
    id: u64,
    peer: String,
    client: String,
}

pub(super) fn parse_member(document: &Value, limits: &LimitsConfig) -> Result<NewMember> {
    let mut fields = Fields::new(limits);
    let root = fields.object(document, "");
    let id = fields.number(root, "", "id");
    if root.get("id").is_some_and(Value::is_u64) && !(1..=ID_MAX).contains(&id) {
        fields.fault("/id", "must be 1 to 2^53 - 1");
    }
    let peer = address(&mut fields, root, "peer_address");
    let client = address(&mut fields, root, "client_address");
    fields.finish()?;
    Ok(NewMember { id, peer, client })
}

/// Adds a learner.
pub(super) async fn add(State(api): State<Shared>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let caller = api.root(&parts.headers).await?;
    let body = api.json_body(&parts.headers, body).await?;
    let document = api.json(&parts.headers, &body)?;
    let NewMember { id, peer, client } = parse_member(&document, &api.limits)?;
    let change = MemberChange::Add {
        id,
        peer_address: peer,
        client_address: client,
    };
    let keyed = keyed(&api, &caller, &parts, &body)?;
    let mut response = changed(&api, StatusCode::CREATED, change, keyed).await?;
    let location =
        HeaderValue::try_from(format!("{MEMBERS}{id}")).expect("digits in a path are a header value");
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// Makes a learner that has caught up a voter.
pub(super) async fn promote(State(api): State<Shared>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let caller = api.root(&parts.headers).await?;
    let change = MemberChange::Promote {
        id: id_of(&parts.uri)?,
    };
    let body = api.json_body(&parts.headers, body).await?;
    api.json(&parts.headers, &body)?;
    let keyed = keyed(&api, &caller, &parts, &body)?;
    changed(&api, StatusCode::OK, change, keyed).await
}

pub(super) async fn remove(State(api): State<Shared>, request: Request) -> Result<Response> {
    let (parts, _body) = request.into_parts();
    let caller = api.root(&parts.headers).await?;
    let change = MemberChange::Remove {
        id: id_of(&parts.uri)?,
    };
    let keyed = keyed(&api, &caller, &parts, b"")?;
    changed(&api, StatusCode::OK, change, keyed).await
}

/// Whom to hand leadership to.
pub(super) fn parse_transfer(document: &Value, limits: &LimitsConfig) -> Result<u64> {
    let mut fields = Fields::new(limits);
    let root = fields.object(document, "");
    let to = fields.number(root, "", "to");
    fields.finish()?;
    Ok(to)
}

/// Hands leadership over.
pub(super) async fn transfer(State(api): State<Shared>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let caller = api.root(&parts.headers).await?;
    let body = api.json_body(&parts.headers, body).await?;
    let document = api.json(&parts.headers, &body)?;
    let to = parse_transfer(&document, &api.limits)?;
    let keyed = keyed(&api, &caller, &parts, &body)?;
    changed(&api, StatusCode::OK, MemberChange::Lead { to }, keyed).await
}
