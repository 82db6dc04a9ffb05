//! Transactions: conditions, operations, and what each branch answered.

use super::kv::KeyValue;
use super::value::{self, Base64, Base64Ref};
use super::{LeaseId, Revision};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Body of `POST /v1/txn`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnRequest {
    #[serde(rename = "if", default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    #[serde(rename = "then", default, skip_serializing_if = "Vec::is_empty")]
    pub then: Vec<Op>,
    #[serde(rename = "else", default, skip_serializing_if = "Vec::is_empty")]
    pub otherwise: Vec<Op>,
    /// `None` when the member is missing: then a refused `add` runs `else`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<Vec<Op>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "ConditionJson")]
pub struct Condition {
    pub key: String,
    pub target: Target,
    pub op: Comparison,
    /// `Value` exactly when the target is `Value`.
    pub operand: Operand,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    Version,
    Create,
    Mod,
    Value,
    Int,
    Lease,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Comparison {
    #[serde(rename = "==")]
    Equal,
    #[serde(rename = "!=")]
    NotEqual,
    #[serde(rename = "<")]
    Less,
    #[serde(rename = "<=")]
    LessOrEqual,
    #[serde(rename = ">")]
    Greater,
    #[serde(rename = ">=")]
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    Int(i64),
    Value(Bytes),
}

#[derive(Deserialize)]
struct ConditionJson {
    key: String,
    target: Target,
    op: Comparison,
    operand: Option<OperandJson>,
    operand_base64: Option<Base64>,
}

/// An integer or a text: anything else is refused at this field, so that the fault points to it.
enum OperandJson {
    Int(i64),
    Text(String),
}

impl<'de> Deserialize<'de> for OperandJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = OperandJson;

            fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
                formatter.write_str("a 64-bit integer or a string")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<OperandJson, E> {
                Ok(OperandJson::Int(number))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<OperandJson, E> {
                match i64::try_from(number) {
                    Ok(number) => Ok(OperandJson::Int(number)),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Unsigned(number), &self)),
                }
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OperandJson, E> {
                Ok(OperandJson::Text(text.to_owned()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl TryFrom<ConditionJson> for Condition {
    type Error = String;

    fn try_from(json: ConditionJson) -> Result<Self, String> {
        let operand = match (json.target, json.operand, json.operand_base64) {
            (_, Some(_), Some(_)) => Err("`operand` and `operand_base64` exclude each other"),
            (_, None, None) => Err("missing field `operand`"),
            (Target::Value, Some(OperandJson::Text(text)), None) => Ok(Operand::Value(text.into())),
            (Target::Value, None, Some(Base64(bytes))) => Ok(Operand::Value(bytes)),
            (Target::Value, Some(OperandJson::Int(_)), None) => Err("the operand of `value` is a string"),
            (_, Some(OperandJson::Int(number)), None) => Ok(Operand::Int(number)),
            _ => Err("only the operand of `value` is a string; of all others it is an integer"),
        }?;
        Ok(Self {
            key: json.key,
            target: json.target,
            op: json.op,
            operand,
        })
    }
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(untagged)]
        enum OperandJson<'a> {
            Int(i64),
            Text(&'a str),
        }
        #[derive(Serialize)]
        struct Json<'a> {
            key: &'a str,
            target: Target,
            op: Comparison,
            #[serde(skip_serializing_if = "Option::is_none")]
            operand: Option<OperandJson<'a>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            operand_base64: Option<Base64Ref<'a>>,
        }
        let (operand, operand_base64) = match &self.operand {
            Operand::Int(number) => (Some(OperandJson::Int(*number)), None),
            Operand::Value(bytes) => {
                let (text, base64) = value::split(Some(bytes));
                (text.map(OperandJson::Text), base64)
            }
        };
        Json {
            key: &self.key,
            target: self.target,
            op: self.op,
            operand,
            operand_base64,
        }
        .serialize(serializer)
    }
}

/// `{"put": {…}}`, `{"delete": {…}}`, `{"get": {…}}` or `{"add": {…}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "OpJson")]
pub enum Op {
    Put(PutOp),
    Delete(Selector),
    Get(GetOp),
    Add(AddOp),
}

#[derive(Deserialize)]
struct OpJson {
    put: Option<PutOp>,
    delete: Option<Selector>,
    get: Option<GetOp>,
    add: Option<AddOp>,
}

impl TryFrom<OpJson> for Op {
    type Error = &'static str;

    fn try_from(json: OpJson) -> Result<Self, &'static str> {
        match (json.put, json.delete, json.get, json.add) {
            (Some(put), None, None, None) => Ok(Self::Put(put)),
            (None, Some(selector), None, None) => Ok(Self::Delete(selector)),
            (None, None, Some(get), None) => Ok(Self::Get(get)),
            (None, None, None, Some(add)) => Ok(Self::Add(add)),
            _ => Err("an operation has exactly one of `put`, `delete`, `get` and `add`"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "PutOpJson")]
pub struct PutOp {
    pub key: String,
    pub value: Bytes,
    pub lease: Option<LeaseId>,
}

#[derive(Deserialize)]
struct PutOpJson {
    key: String,
    value: Option<String>,
    value_base64: Option<Base64>,
    lease: Option<LeaseId>,
}

impl TryFrom<PutOpJson> for PutOp {
    type Error = String;

    fn try_from(json: PutOpJson) -> Result<Self, String> {
        let value = value::join(json.value, json.value_base64, "value")?.ok_or("missing field `value`")?;
        Ok(Self {
            key: json.key,
            value,
            lease: json.lease,
        })
    }
}

impl Serialize for PutOp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Json<'a> {
            key: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            value: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            value_base64: Option<Base64Ref<'a>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            lease: Option<LeaseId>,
        }
        let (text, base64) = value::split(Some(&self.value));
        Json {
            key: &self.key,
            value: text,
            value_base64: base64,
            lease: self.lease,
        }
        .serialize(serializer)
    }
}

/// One key, or all keys below a prefix (the empty prefix is every key).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "SelectorJson")]
pub enum Selector {
    Key(String),
    Prefix(String),
}

#[derive(Deserialize)]
struct SelectorJson {
    key: Option<String>,
    prefix: Option<String>,
}

impl TryFrom<SelectorJson> for Selector {
    type Error = &'static str;

    fn try_from(json: SelectorJson) -> Result<Self, &'static str> {
        match (json.key, json.prefix) {
            (Some(key), None) => Ok(Self::Key(key)),
            (None, Some(prefix)) => Ok(Self::Prefix(prefix)),
            _ => Err("exactly one of `key` and `prefix` is needed"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "GetOpJson")]
pub struct GetOp {
    #[serde(flatten)]
    pub selector: Selector,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

#[derive(Deserialize)]
struct GetOpJson {
    key: Option<String>,
    prefix: Option<String>,
    limit: Option<u32>,
}

impl TryFrom<GetOpJson> for GetOp {
    type Error = &'static str;

    fn try_from(json: GetOpJson) -> Result<Self, &'static str> {
        let selector = Selector::try_from(SelectorJson {
            key: json.key,
            prefix: json.prefix,
        })?;
        Ok(Self {
            selector,
            limit: json.limit,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddOp {
    pub key: String,
    pub by: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
}

/// Answer of `POST /v1/txn`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnAnswer {
    pub revision: Revision,
    pub succeeded: bool,
    pub branch: Branch,
    /// Which operation was refused, if one was: of `then`, or of `else` where the conditions did not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_op: Option<u32>,
    pub results: Vec<OpResult>,
}

impl TxnAnswer {
    /// The single key that an op of the branch read.
    pub fn got(&self, op: usize) -> Option<&KeyValue> {
        match self.results.get(op) {
            Some(OpResult::Get { kvs, .. }) => kvs.first(),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Branch {
    Then,
    Else,
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OpResult {
    Put { version: u64 },
    Delete { deleted: u64 },
    Get { kvs: Vec<KeyValue>, count: u64 },
    Add { value: i64 },
}
