//! Where everything stands. All keys begin with `shop/NAME/`, which belongs to this shop alone.
//! Invariant: names in keys are percent-encoded, so a slash always separates; what pages follow stands under `live/`,
//! so that one watch sees it in one order.

use std::fmt::Display;
use std::sync::Arc;

use super::TypedName;
use crate::domain::{OrderId, ProductId, UserId, Username, segment};

#[derive(Clone, Debug)]
pub(crate) struct Keys {
    root: Arc<str>,
}

/// What stands under a product's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GoodsPart {
    Record,
    Stock,
}

impl GoodsPart {
    fn word(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Stock => "stock",
        }
    }
}

impl Keys {
    pub(crate) fn of_shop(name: &str) -> Self {
        Self {
            root: format!("shop/{}/", segment(name)).into(),
        }
    }

    pub(super) fn at(&self, rest: impl Display) -> String {
        format!("{}{rest}", self.root)
    }

    #[cfg(test)]
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// Everything that pages follow.
    pub(crate) fn live(&self) -> String {
        self.at("live/")
    }

    pub(crate) fn all_goods(&self) -> String {
        self.at("live/goods/")
    }

    pub(crate) fn goods(&self, product: &str) -> String {
        self.at(format_args!("live/goods/{product}/"))
    }

    pub(crate) fn goods_part(&self, product: &str, part: GoodsPart) -> String {
        self.at(format_args!("live/goods/{product}/{}", part.word()))
    }

    /// What stands below a product's prefix at this key.
    pub(crate) fn parse_goods<'key>(&self, key: &'key str) -> Option<(&'key str, GoodsPart)> {
        let rest = key.strip_prefix(&*self.root)?.strip_prefix("live/goods/")?;
        let (product, part) = rest.split_once('/')?;
        match part {
            "record" => Some((product, GoodsPart::Record)),
            "stock" => Some((product, GoodsPart::Stock)),
            _ => None,
        }
    }

    /// All pieces that ever came in, less those that were taken out again other than by a sale.
    pub(crate) fn received(&self, product: &str) -> String {
        self.at(format_args!("received/{product}"))
    }

    pub(crate) fn all_received(&self) -> String {
        self.at("received/")
    }

    pub(crate) fn last_product(&self) -> String {
        self.at("last/product")
    }

    /// How many products there are, which is bounded.
    pub(crate) fn product_count(&self) -> String {
        self.at("count/product")
    }

    pub(crate) fn all_sessions(&self) -> String {
        self.at("live/session/")
    }

    pub(crate) fn session(&self, hash: &str) -> String {
        self.at(format_args!("live/session/{hash}"))
    }

    pub(crate) fn account(&self, name: &Username) -> String {
        self.at(format_args!("account/{}", segment(name.as_str())))
    }

    pub(crate) fn user(&self, user: &UserId) -> String {
        self.at(format_args!("user/{}", segment(user.as_str())))
    }

    /// The sessions of a user, each under the lease that the session is under.
    pub(crate) fn sessions_of(&self, user: &str) -> String {
        self.at(format_args!("signed-in/{}/", segment(user)))
    }

    pub(crate) fn session_of(&self, user: &str, hash: &str) -> String {
        format!("{}{hash}", self.sessions_of(user))
    }

    /// How often a name was tried of late; under a lease that others share.
    pub(crate) fn tried(&self, name: &TypedName) -> String {
        self.at(format_args!("tried/{}", name.as_str()))
    }

    pub(crate) fn all_carts(&self) -> String {
        self.at("live/cart/")
    }

    pub(crate) fn cart(&self, user: &UserId) -> String {
        self.at(format_args!("live/cart/{}", segment(user.as_str())))
    }

    pub(crate) fn all_orders(&self) -> String {
        self.at("live/order/")
    }

    pub(crate) fn orders(&self, user: &UserId) -> String {
        self.at(format_args!("live/order/{}/", segment(user.as_str())))
    }

    pub(crate) fn order(&self, user: &UserId, order: &OrderId) -> String {
        self.at(format_args!("live/order/{}/{order}", segment(user.as_str())))
    }

    pub(crate) fn todos(&self) -> String {
        self.at("todo/")
    }

    /// Stands exactly as long as the order has not ended.
    pub(crate) fn todo(&self, order: &OrderId) -> String {
        self.at(format_args!("todo/{order}"))
    }

    pub(crate) fn instances(&self) -> String {
        self.at("instance/")
    }

    /// Under a lease of that instance.
    pub(crate) fn instance(&self, id: &str) -> String {
        self.at(format_args!("instance/{id}"))
    }

    pub(crate) fn answer(&self, hash: &str) -> String {
        self.at(format_args!("answer/{hash}"))
    }

    /// What runs out, in the order of time.
    pub(crate) fn due_answer(&self, at_ms: u64, hash: &str) -> String {
        self.at(format_args!("due/{at_ms:013}/answer/{hash}"))
    }

    /// What is removed together with this key once it is due.
    pub(crate) fn ends_with(&self, due: &str) -> Option<String> {
        let (_at_ms, what) = due.strip_prefix(&self.due())?.split_once('/')?;
        match what.split_once('/')? {
            ("answer", hash) => Some(self.answer(hash)),
            ("notice", rest) => Some(format!("{}{rest}", self.notices())),
            // An older program counts tries without a lease, under the name itself.
            ("tries", name) => Some(self.at(format_args!("tried/{name}"))),
            _ => None,
        }
    }

    pub(crate) fn due(&self) -> String {
        self.at("due/")
    }

    /// Everything that is due at this time stands before it.
    pub(crate) fn due_before(&self, now_ms: u64) -> String {
        self.at(format_args!("due/{:013}/", now_ms.saturating_add(1)))
    }

    /// Says that the goods for trying out were put on the shelves once.
    pub(crate) fn demo(&self) -> String {
        self.at("demo")
    }

    /// The name of a payment, which no other shop makes.
    pub(crate) fn payment_id(shop: &str, order: &OrderId) -> String {
        format!("{shop}-{order}")
    }

    pub(crate) fn stock(&self, product: &ProductId) -> String {
        self.goods_part(product.as_str(), GoodsPart::Stock)
    }

    pub(crate) fn record(&self, product: &ProductId) -> String {
        self.goods_part(product.as_str(), GoodsPart::Record)
    }
}

#[cfg(test)]
mod tests {
    use service::secrets::Secret;

    use super::*;

    #[test]
    fn names_cannot_reach_into_each_other() {
        let keys = Keys::of_shop("one");
        let user = UserId::parse("a/b").unwrap();
        assert_eq!(keys.cart(&user), "shop/one/live/cart/a%2Fb");
        let order = OrderId::new(1);
        assert!(
            keys.order(&user, &order)
                .starts_with("shop/one/live/order/a%2Fb/")
        );
        let key = keys.stock(&ProductId::numbered(7));
        assert_eq!(keys.parse_goods(&key), Some(("7", GoodsPart::Stock)));
        assert_eq!(Keys::of_shop("two").parse_goods(&key), None);
        assert!(Keys::of_shop("on").root() != keys.root());
    }

    #[test]
    fn what_is_due_names_what_goes() {
        let keys = Keys::of_shop("one");
        let (user, order) = (UserId::parse("a/b").unwrap(), OrderId::new(1));
        assert_eq!(keys.ends_with(&keys.due_answer(7, "ab")), Some(keys.answer("ab")));
        let due = keys.due_notice(7, &user, &order);
        assert_eq!(keys.ends_with(&due), Some(keys.notice(&user, &order)));
        let due = "shop/one/due/0000000000007/tries/a%2Fb";
        assert_eq!(keys.ends_with(due).as_deref(), Some("shop/one/tried/a%2Fb"));
        assert_eq!(keys.ends_with("elsewhere"), None);
    }

    #[test]
    fn what_was_typed_as_a_name_cannot_be_read() {
        let (keys, name) = (Keys::of_shop("one"), Username::parse("correct horse").unwrap());
        let tried = |secret: &str| keys.tried(&TypedName::of(&Secret::new(secret), &name));
        let hash = tried("a secret of this shop").replacen("shop/one/tried/", "", 1);
        assert!(
            hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{hash}"
        );
        assert_eq!(tried("a secret of this shop"), tried("a secret of this shop"));
        assert_ne!(tried("a secret of this shop"), tried("the secret of another"));
    }

    #[test]
    fn the_longest_names_fit_into_a_key() {
        let user = UserId::parse(&"ü".repeat(128)).unwrap();
        let keys = Keys::of_shop(&"x".repeat(63));
        assert!(keys.order(&user, &OrderId::new(1)).len() <= 1024);
        assert!(keys.session_of(user.as_str(), &"0".repeat(64)).len() <= 1024);
        let name = Username::parse(&"ü".repeat(64)).unwrap();
        assert!(keys.account(&name).len() <= 1024);
    }
}
