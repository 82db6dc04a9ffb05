//! Leases: keys that end with them, and pins on old revisions.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use bytes::Bytes;
use kvstore_client::wire::lease::{Lease as LeaseAnswer, LeaseStatus};
use kvstore_client::wire::level::Consistency;
use serde_json::Value;
use service::config::LimitsConfig;
use service::problem::{self, Problem, Result};

use super::auth::Caller;
use super::fields::Fields;
use super::keys::{deleted, text_of, unexpected};
use super::once::once;
use super::params::{Params, malformed, parse_number, segment};
use super::{Api, Shared, cursor, large, pins, reply};
use crate::command::{Access, Action, Answer, Once, Reply};
use crate::machine::access;
use crate::machine::base::Base as _;
use crate::machine::host::Machine;
use crate::machine::state::{KeptId, Lease, Token};
use crate::machine::turns::Turn;
use crate::store::{Asker, Store, fair_part};

const TTL_MS_MIN: u64 = 500;
const TTL_MS_MAX: u64 = 24 * 3600 * 1000;
/// Ids stay below this, so that JSON numbers hold them everywhere.
const ID_BITS: u32 = 53;

/// Never 0, which stands for no lease. If it is taken, the state machine takes the next free one.
pub(super) fn new_id() -> u64 {
    let random = getrandom::u64().expect("the operating system has random bytes to give");
    (random >> (u64::BITS - ID_BITS)).max(1)
}

pub(super) fn id_of(uri: &Uri) -> Result<u64> {
    parse_number(&segment(uri, "/v1/leases/", "id")?, "id")
}

/// A lease that is asked for.
pub(super) struct Wish {
    ttl_ms: u64,
    /// The revision to keep readable, if any.
    pin: Option<u64>,
}

pub(super) fn parse(document: &Value, limits: &LimitsConfig) -> Result<Wish> {
    let mut fields = Fields::new(limits);
    let root = fields.object(document, "");
    let ttl_ms = fields.number(root, "", "ttl_ms");
    let pin = fields.optional_number(root, "", "pin");
    if root.get("ttl_ms").is_some_and(Value::is_u64) && !(TTL_MS_MIN..=TTL_MS_MAX).contains(&ttl_ms) {
        fields.fault(
            "/ttl_ms",
            format!("must be {TTL_MS_MIN} to {TTL_MS_MAX} milliseconds"),
        );
    }
    fields.finish()?;
    Ok(Wish { ttl_ms, pin })
}

pub(super) async fn grant(State(api): State<Shared>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let caller = api.caller(&parts.headers).await?;
    let body = api.json_body(&parts.headers, body).await?;
    let once = once(&api, &parts, &body)?;
    let document = api.json(&parts.headers, &body)?;
    let Wish { ttl_ms, pin } = parse(&document, &api.limits)?;
    let (owner, leases_max) = (caller.name(), api.limits.leases_max);
    let has_room = has_room(&api.store, owner, leases_max)
        && (pin.is_none() || pins::has_room(&api.store, owner, leases_max));
    if !has_room && !is_repeated(&api, &caller, once.as_ref()) {
        let detail = format!(
            "There is no room for another lease of this token, and this one was not granted; let others end. The store \
             has {leases_max} leases at most and a quarter as many pins, and a token that has more than a quarter of \
             either leaves the last one to others."
        );
        return Err(Problem::new(problem::OVERLOADED, detail));
    }
    let reply = api
        .write(
            &caller,
            Action::LeaseGrant {
                id: new_id(),
                ttl_ms,
                pin,
            },
            once,
        )
        .await?;
    let mut response = lease_answer(&api, StatusCode::CREATED, &reply);
    if let Answer::Lease { id, .. } = reply.answer {
        let location =
            HeaderValue::try_from(format!("/v1/leases/{id}")).expect("digits in a path are a header value");
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Every node keeps all leases in memory. Decided here and not where it is applied, since nodes of other versions know no
/// such limit; so those that are granted at the same time may pass it a little.
pub(super) fn has_room(store: &Store, owner: &str, leases_max: usize) -> bool {
    let leases = &store.machine().leases;
    (leases.len() as u64) < fair_part(leases_max as u64, leases.of(owner) as u64)
}

/// A lease that was granted under this key takes no more room, and is told again.
pub(super) fn is_repeated(api: &Api, caller: &Caller, once: Option<&Once>) -> bool {
    let generation = api.store.machine().generation();
    once.is_some_and(|once| {
        let id = KeptId {
            owner: caller.name().to_owned(),
            key: once.key.clone(),
        };
        generation.db().kept(&id).is_some()
    })
}

fn lease_answer(api: &Api, status: StatusCode, reply: &Reply) -> Response {
    let Answer::Lease { id, ttl_ms } = reply.answer else {
        unexpected(reply)
    };
    api.written(status, reply, &LeaseAnswer { id, ttl_ms })
}

pub(super) async fn keepalive(State(api): State<Shared>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let caller = api.caller(&parts.headers).await?;
    let id = id_of(&parts.uri)?;
    let body = api.json_body(&parts.headers, body).await?;
    api.json(&parts.headers, &body)?;
    let once = once(&api, &parts, &body)?;
    let reply = api.write(&caller, Action::LeaseRenew { id }, once).await?;
    Ok(lease_answer(&api, StatusCode::OK, &reply))
}

/// Ends the lease and deletes its keys, all in one revision.
pub(super) async fn revoke(State(api): State<Shared>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let caller = api.caller(&parts.headers).await?;
    let id = id_of(&parts.uri)?;
    let body = api.json_body(&parts.headers, body).await?;
    let once = once(&api, &parts, &body)?;
    let reply = api.write(&caller, Action::LeaseRevoke { id }, once).await?;
    Ok(deleted(&api, &reply))
}

/// Whoever may read all keys may know what they hang on.
fn may_see(lease: &Lease, token: &Token) -> bool {
    lease.owner == token.name || access::allows_range(token, b"", None, Access::Read)
}

fn status(machine: &Machine, id: u64, lease: &Lease, keys: Vec<bytes::Bytes>) -> LeaseStatus {
    let remaining = machine.leases.remaining(id).unwrap_or_default();
    LeaseStatus {
        id,
        ttl_ms: lease.ttl_ms,
        owner: lease.owner.clone(),
        remaining_ms: u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX),
        keys: keys.iter().map(|key| text_of(key).to_owned()).collect(),
        pin: lease.pin,
    }
}

pub(super) async fn show(State(api): State<Shared>, request: Request) -> Result<Response> {
    api.in_time(shown(&api, request)).await
}

async fn shown(api: &Api, request: Request) -> Result<Response> {
    let (parts, _body) = request.into_parts();
    let caller = api.caller(&parts.headers).await?;
    let id = id_of(&parts.uri)?;
    let params = Params::of(&parts.uri);
    let (level, keyless) = (params.level()?, params.flag("keyless")?);
    // Before it is read, or the answer would be as old as the waiting is long.
    let turn = turn(api, &caller, keyless).await;
    let point = api.read_point(level).await?;
    let token = caller.present(api)?;
    let Some(lease) = point.generation.db().lease(id) else {
        let problem = Problem::new(problem::LEASE_NOT_FOUND, format!("There is no lease {id}."));
        return Err(reply::stamp_absent(problem, point.revision, level));
    };
    if !may_see(&lease, &token) {
        let detail = format!("The lease {id} belongs to another token.");
        return Err(Problem::new(problem::FORBIDDEN, detail));
    }
    let machine = Arc::clone(api.store.machine());
    let (asker, _waiting) = Asker::new();
    // Very many keys would hold up everything else on this thread, to be found and to be put into JSON.
    let reading = api.store.edge().spawn_blocking("lease", move || {
        let keys = if keyless {
            Vec::new()
        } else {
            let db = point.generation.db();
            db.lease_keys_while(id, &|| asker.is_waiting())
        };
        let text = reply::text(&status(&machine, id, &lease, keys));
        found(point.revision, level, large::kept(text, turn))
    });
    reading
        .await
        .map_err(|error| Problem::internal("show a lease", error))
}

/// To gather keys of leases, of which nothing bounds how many there are. The work keeps it: it may go on for a moment when
/// its caller has left, who may ask again at once.
async fn turn(api: &Api, caller: &Caller, keyless: bool) -> Option<Turn> {
    if keyless {
        return None;
    }
    Some(api.gatherings.of(caller.name()).turn().await)
}

fn found(revision: u64, level: Consistency, text: Bytes) -> Response {
    let mut response = reply::json_text(StatusCode::OK, text);
    reply::stamp_read(revision, level, response.headers_mut());
    response
}

/// Leases of one page.
const PAGE_MAX: u64 = 200;

/// A part of the leases, in the order of their ids; all of them where nothing is said.
struct Part {
    after: u64,
    limit: usize,
    /// On one lease there may be very many keys.
    keyless: bool,
}

impl Part {
    fn of(params: &Params<'_>) -> Result<Self> {
        let (limit, after) = (params.number("limit")?, params.number("cursor")?);
        if limit.is_some_and(|limit| !(1..=PAGE_MAX).contains(&limit)) {
            return Err(malformed(format!("The parameter `limit` is 1 to {PAGE_MAX}.")));
        }
        let whole = limit.is_none() && after.is_none();
        let limit = limit.unwrap_or(PAGE_MAX);
        Ok(Self {
            after: after.unwrap_or(0),
            limit: if whole {
                usize::MAX
            } else {
                usize::try_from(limit).unwrap_or(usize::MAX)
            },
            keyless: params.flag("keyless")?,
        })
    }
}

/// The caller's own leases; all of them for who may read all keys.
pub(super) async fn list(State(api): State<Shared>, request: Request) -> Result<Response> {
    api.in_time(list_of(&api, request)).await
}

async fn list_of(api: &Api, request: Request) -> Result<Response> {
    let (parts, _body) = request.into_parts();
    let caller = api.caller(&parts.headers).await?;
    let params = Params::of(&parts.uri);
    let (level, part) = (params.level()?, Part::of(&params)?);
    let (limit, keyless) = (part.limit, part.keyless);
    let turn = turn(api, &caller, keyless).await;
    let point = api.read_point(level).await?;
    let token = caller.present(api)?;
    let machine = Arc::clone(api.store.machine());
    let (asker, _waiting) = Asker::new();
    let reading = api.store.edge().spawn_blocking("lease-list", move || {
        let db = point.generation.db();
        let mut leases: Vec<LeaseStatus> = Vec::new();
        db.leases_after(part.after, &mut |id, lease| {
            if may_see(&lease, &token) {
                let keys = if keyless {
                    Vec::new()
                } else {
                    db.lease_keys_while(id, &|| asker.is_waiting())
                };
                leases.push(status(&machine, id, &lease, keys));
            }
            // One more than the page holds tells that there is a next one.
            if asker.is_waiting() && leases.len() <= limit {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        let more = leases.len() > limit;
        leases.truncate(limit);
        let last = leases.last().filter(|_| more).map(|lease| lease.id);
        let text = large::kept(reply::text(&leases), turn);
        (found(point.revision, level, text), last)
    });
    let (mut response, last) = reading
        .await
        .map_err(|error| Problem::internal("list the leases", error))?;
    if let Some(last) = last {
        let link = cursor::next_link(&parts.uri, &last.to_string());
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::super::half_made::{request, seed};
    use super::*;
    use crate::raft::bare::Bare;
    use crate::raft::start::root_rules;

    #[tokio::test]
    async fn the_keys_of_a_lease_are_looked_up_on_another_thread() {
        let node = Bare::cluster(1).await.remove(0);
        seed(&node, "an id", "root", root_rules()).await;
        let grant = Action::LeaseGrant {
            id: 7,
            ttl_ms: TTL_MS_MAX,
            pin: None,
        };
        node.desk.propose_own(grant).await.unwrap();
        let limits = LimitsConfig::default();
        let api = Arc::new(Api::new(Store::over(&node, &limits), limits));
        // Which waits for nobody else.
        let showing = || {
            let ask = request("GET", "/v1/leases/7?consistency=local", Some("root"));
            Box::pin(show(State(Arc::clone(&api)), ask))
        };
        let mut alone = showing();
        assert!(alone.as_mut().now_or_never().is_none(), "it was done here");
        assert_eq!(alone.await.unwrap().status(), StatusCode::OK);
        // Each has all keys in memory, so whoever owns two waits with the second; and is told what is there then.
        let turn = api.gatherings.of("root").turn().await;
        let running = api.store.edge().running();
        let mut second = showing();
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!(api.store.edge().running(), running, "it gathers them already");
        node.desk
            .propose_own(Action::LeaseRevoke { id: 7 })
            .await
            .unwrap();
        drop(turn);
        assert_eq!(second.await.unwrap_err().kind, problem::LEASE_NOT_FOUND);
        node.end().await;
    }
}
