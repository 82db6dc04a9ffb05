//! Tokens: who may call, and which prefixes they may touch. For root alone.
//!
//! Invariant: a secret is made here, shown once in the answer that made it, and kept only as a hash. So no
//! answer of these routes is remembered under an Idempotency-Key: the header is ignored.

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use bytes::Bytes;
use kvstore_client::wire::kv::RevisionAnswer;
use kvstore_client::wire::level::Consistency;
use kvstore_client::wire::tokens::{Access as WireAccess, NewToken, Rule as WireRule, TokenRules};
use serde_json::Value;
use service::problem::Result;
use service::secrets::Secret;

use super::fields::{Fields, place};
use super::keys::text_of;
use super::params::{Params, malformed, segment};
use super::{Shared, auth, reply};
use crate::command::{Access, Action, Rule};

const NAME_BYTES_MAX: usize = 64;
const RULES_MAX: usize = 128;
/// Whoever holds the token of this name may do all; its rules cannot be narrowed.
const ROOT: &str = "root";

fn name_of(uri: &Uri) -> Result<String> {
    let name = segment(uri, "/v1/tokens/", "name")?;
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(sound) {
        let detail = format!(
            "The name of a token is 1 to {NAME_BYTES_MAX} letters, digits, hyphens, underscores or dots."
        );
        return Err(malformed(detail));
    }
    Ok(name.into_owned())
}

fn wire_rules(rules: &[Rule]) -> Vec<WireRule> {
    let rules = rules.iter().map(|rule| WireRule {
        prefix: text_of(&rule.prefix).to_owned(),
        access: if rule.access == Access::Read {
            WireAccess::Read
        } else {
            WireAccess::Write
        },
    });
    rules.collect()
}

pub(super) fn parse(document: &Value, limits: &service::config::LimitsConfig) -> Result<Vec<Rule>> {
    let mut fields = Fields::new(limits);
    let root = fields.object(document, "");
    let list = fields.list(root, "", "prefixes", RULES_MAX);
    if list.is_none() && document.is_object() {
        fields.fault("/prefixes", "is missing");
    }
    let mut rules = Vec::new();
    for (n, value) in list.unwrap_or_default().iter().enumerate() {
        let at = format!("/prefixes/{n}");
        let map = fields.object(value, &at);
        if !value.is_object() {
            continue;
        }
        let prefix = fields.prefix(map, &at);
        let access = match fields.text(map, &at, "access") {
            "write" => Access::Write,
            "read" => Access::Read,
            other => {
                if !other.is_empty() || map.get("access").and_then(Value::as_str).is_some() {
                    fields.fault(place(&at, "access"), "must be read or write");
                }
                Access::Read
            }
        };
        rules.push(Rule { prefix, access });
    }
    fields.finish()?;
    Ok(rules)
}

pub(super) async fn list(State(api): State<Shared>, request: Request) -> Result<Response> {
    let (parts, _body) = request.into_parts();
    let caller = api.root(&parts.headers).await?;
    let asked = Params::of(&parts.uri).level()?;
    // Who is root was asked at the read index, so the tokens are those of that moment or later; only `at_least` waits for
    // something more.
    let mut level = Consistency::Linearizable;
    if matches!(asked, Consistency::AtLeast(_)) {
        api.read_point(asked).await?;
        api.root_only(&caller)?;
        level = asked;
    }
    let tokens = api.store.tokens();
    let rules = tokens.by_name.values().map(|token| TokenRules {
        name: token.name.clone(),
        prefixes: wire_rules(&token.rules),
    });
    let rules: Vec<TokenRules> = rules.collect();
    let revision = api.store.machine().progress_now().revision;
    Ok(reply::found(revision, level, &rules))
}

/// Makes the token, or gives it new rules and a new secret; the old secret ends at once.
pub(super) async fn make(State(api): State<Shared>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let caller = api.caller(&parts.headers).await?;
    api.root_only(&caller)?;
    let name = name_of(&parts.uri)?;
    let body = api.json_body(&parts.headers, body).await?;
    let document = api.json(&parts.headers, &body)?;
    let mut rules = parse(&document, &api.limits)?;
    if name == ROOT {
        rules = vec![Rule {
            prefix: Bytes::new(),
            access: Access::Root,
        }];
    }
    let secret =
        Secret::random().map_err(|error| service::problem::Problem::internal("make a token", error))?;
    let prefixes = wire_rules(&rules);
    let action = Action::TokenPut {
        name: name.clone(),
        hash: auth::hash(secret.expose().as_bytes()),
        rules,
    };
    let reply = api.write(&caller, action, None).await?;
    let answer = NewToken {
        name,
        prefixes,
        token: secret.expose().to_owned(),
    };
    let mut response = api.written(StatusCode::CREATED, &reply, &answer);
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

pub(super) async fn remove(State(api): State<Shared>, request: Request) -> Result<Response> {
    let (parts, _body) = request.into_parts();
    let caller = api.caller(&parts.headers).await?;
    api.root_only(&caller)?;
    let name = name_of(&parts.uri)?;
    let reply = api.write(&caller, Action::TokenDelete { name }, None).await?;
    Ok(api.written(
        StatusCode::OK,
        &reply,
        &RevisionAnswer {
            revision: reply.revision,
        },
    ))
}
