//! Mirrors: second copies in databases of another kind, of which writes may wait.
//!
//! Whoever may write the key `mirror/NAME` speaks for the mirror of that name. Invariant: what is told of a mirror is
//! the leader's word, since only the leader waits for it.

use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use kvstore_client::wire::level::Consistency;
use kvstore_client::wire::mirror::MirrorStatus;
use serde_json::{Map, Value};
use service::config::LimitsConfig;
use service::problem::{self, Problem, Result};

use super::auth::Caller;
use super::fields::Fields;
use super::params::{Params, malformed, segment};
use super::{Api, Shared, once, reply};
use crate::command::{Access, Action, MirrorMode, MirrorState, OnLoss};
use crate::machine::access;
use crate::raft::network::message::MirrorView;
use crate::store::HearError;

const NAME_BYTES_MAX: usize = 63;
const INCARNATION_BYTES_MAX: usize = 64;

pub(super) fn name_of(uri: &Uri) -> Result<String> {
    let name = segment(uri, "/v1/mirrors/", "name")?;
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(sound) {
        return Err(malformed(format!(
            "The name of a mirror is 1 to {NAME_BYTES_MAX} letters, digits, hyphens, underscores or dots."
        )));
    }
    Ok(name.into_owned())
}

fn may_speak(api: &Api, caller: &Caller, name: &str) -> Result<()> {
    let key = format!("{}{name}", access::MIRRORS);
    if access::allows_key(&*caller.present(api)?, key.as_bytes(), Access::Write) {
        return Ok(());
    }
    let detail = format!("The rules of this token do not let it speak for the mirror `{name}`.");
    Err(Problem::new(problem::FORBIDDEN, detail))
}

/// One of two words.
fn word<T: Copy>(
    fields: &mut Fields<'_>,
    root: &Map<String, Value>,
    name: &str,
    words: [(&str, T); 2],
    absent: Option<T>,
) -> T {
    let [(first, one), (second, other)] = words;
    match root.get(name).and_then(Value::as_str) {
        Some(word) if word == first => one,
        Some(word) if word == second => other,
        _ => {
            if let (None | Some(Value::Null), Some(absent)) = (root.get(name), absent) {
                return absent;
            }
            fields.fault(format!("/{name}"), format!("must be {first} or {second}"));
            one
        }
    }
}

fn incarnation(fields: &mut Fields<'_>, root: &Map<String, Value>) -> String {
    match root.get("incarnation") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) if text.len() <= INCARNATION_BYTES_MAX => text.clone(),
        Some(_) => {
            let detail = format!("must be text of at most {INCARNATION_BYTES_MAX} bytes");
            fields.fault("/incarnation", detail);
            String::new()
        }
    }
}

/// What a mirror says of itself.
pub(super) struct Announced {
    mode: MirrorMode,
    on_loss: OnLoss,
    incarnation: String,
}

pub(super) fn parse_announcement(document: &Value, limits: &LimitsConfig) -> Result<Announced> {
    let mut fields = Fields::new(limits);
    let root = fields.object(document, "");
    let modes = [("sync", MirrorMode::Sync), ("async", MirrorMode::Async)];
    let mode = word(&mut fields, root, "mode", modes, None);
    let losses = [("degrade", OnLoss::Degrade), ("block", OnLoss::Block)];
    let on_loss = word(&mut fields, root, "on_loss", losses, Some(OnLoss::Degrade));
    let incarnation = incarnation(&mut fields, root);
    fields.finish()?;
    Ok(Announced {
        mode,
        on_loss,
        incarnation,
    })
}

/// How far a mirror has come.
pub(super) struct Acknowledged {
    revision: u64,
    incarnation: String,
}

pub(super) fn parse_acknowledgement(document: &Value, limits: &LimitsConfig) -> Result<Acknowledged> {
    let mut fields = Fields::new(limits);
    let root = fields.object(document, "");
    let revision = fields.number(root, "", "revision");
    let incarnation = incarnation(&mut fields, root);
    fields.finish()?;
    Ok(Acknowledged {
        revision,
        incarnation,
    })
}

pub(super) async fn announce(State(api): State<Shared>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let caller = api.caller(&parts.headers).await?;
    let name = name_of(&parts.uri)?;
    let body = api.json_body(&parts.headers, body).await?;
    let document = api.json(&parts.headers, &body)?;
    let Announced {
        mode,
        on_loss,
        incarnation,
    } = parse_announcement(&document, &api.limits)?;
    let action = Action::MirrorPut {
        name: name.clone(),
        mode,
        on_loss,
        incarnation,
    };
    let once = once::once(&api, &parts, &body)?;
    let written = api.write(&caller, action, once).await?;
    // It is announced by now, whoever can tell how it stands; long ago, it may be gone again.
    let views = api.store.mirrors().await;
    let view = match views {
        Ok(views) if written.replayed => {
            let view = views.into_iter().find(|view| view.name == name);
            view.ok_or_else(|| gone(&name))?
        }
        views => {
            let view = views
                .ok()
                .and_then(|views| views.into_iter().find(|view| view.name == name));
            view.ok_or_else(reply::outcome_unknown)?
        }
    };
    Ok(api.written(StatusCode::OK, &written, &status(view)))
}

pub(super) async fn remove(State(api): State<Shared>, request: Request) -> Result<Response> {
    let (parts, _body) = request.into_parts();
    let caller = api.caller(&parts.headers).await?;
    let name = name_of(&parts.uri)?;
    let once = once::once(&api, &parts, b"")?;
    let reply = api
        .write(&caller, Action::MirrorDelete { name: name.clone() }, once)
        .await?;
    Ok(api.written(
        StatusCode::OK,
        &reply,
        &serde_json::json!({"name": name, "deleted": true}),
    ))
}

pub(super) async fn acknowledge(State(api): State<Shared>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let caller = api.caller(&parts.headers).await?;
    let name = name_of(&parts.uri)?;
    may_speak(&api, &caller, &name)?;
    let body = api.json_body(&parts.headers, body).await?;
    let document = api.json(&parts.headers, &body)?;
    let told = parse_acknowledgement(&document, &api.limits)?;
    let heard = api
        .store
        .hear_mirror(&name, &told.incarnation, told.revision)
        .await;
    let view = heard.map_err(|error| hear_problem(error, &name))?;
    Ok(reply::json(StatusCode::OK, &status(view)))
}

pub(super) async fn list(State(api): State<Shared>, request: Request) -> Result<Response> {
    let (parts, _body) = request.into_parts();
    api.caller(&parts.headers).await?;
    // The leader's word is what everybody gets, so that is what is said; only `at_least` waits for something more.
    let level = match Params::of(&parts.uri).level()? {
        level @ Consistency::AtLeast(_) => level,
        _ => Consistency::Linearizable,
    };
    let point = api.read_point(level).await?;
    let views = api.store.mirrors().await.map_err(reply::read_problem)?;
    let mirrors: Vec<MirrorStatus> = views.into_iter().map(status).collect();
    Ok(reply::found(point.revision, level, &mirrors))
}

fn status(view: MirrorView) -> MirrorStatus {
    let mode = match view.mode {
        MirrorMode::Sync => "sync",
        MirrorMode::Async => "async",
    };
    let on_loss = match view.on_loss {
        OnLoss::Degrade => "degrade",
        OnLoss::Block => "block",
    };
    let state = match view.state {
        MirrorState::CatchingUp => "catching_up",
        MirrorState::Ok => "ok",
        MirrorState::Degraded => "degraded",
    };
    MirrorStatus {
        name: view.name,
        mode: mode.to_owned(),
        on_loss: on_loss.to_owned(),
        state: state.to_owned(),
        acknowledged_revision: view.acknowledged,
        lag_revisions: view.lag,
        heard_ms_ago: view.heard_ms_ago,
    }
}

fn gone(name: &str) -> Problem {
    Problem::new(
        problem::MIRROR_NOT_FOUND,
        format!("No mirror `{name}` is announced."),
    )
}

fn hear_problem(error: HearError, name: &str) -> Problem {
    match error {
        HearError::NoLeader => reply::read_problem(crate::store::ReadError::NoLeader),
        HearError::Unknown => gone(name),
        HearError::Another => Problem::new(
            problem::CONFLICT,
            format!("Another database was announced as the mirror `{name}`; announce this one first."),
        ),
        HearError::Future { present } => reply::future_problem(present),
    }
}
