#!/usr/bin/env bash
# The classroom's shop, line by line: products, a cart, an order, and a server that is not there.
#   petstore/walk-through.sh http://127.0.0.1:3001 http://127.0.0.1:3002
# With accounts it signs up and in; ADMIN_PASSWORD is the one in data/secrets.toml. With AUTH=open nobody asks, except for
# the audit: OPERATOR_TOKEN is what `menagerie token operator` says.
set -euo pipefail

shop=${1:-http://127.0.0.1:3001}
other=${2:-http://127.0.0.1:3002}
auth=${AUTH:-accounts}
card=${CARD:-4242 4242 4242 4242}

# The first value of a member in JSON, without any tool but the shell's own.
member() { sed -E "s/.*\"$1\": ?\"?([^\",}]*)\"?.*/\1/"; }
step() { printf '\n# %s\n' "$1"; }
# Shows the line as it would be typed, and keeps the answer.
say() {
  printf '$ curl %s\n' "$*"
  answer=$(curl --silent --show-error --fail-with-body "$@")
  printf '%s\n' "$answer"
}
# A line that must be refused with this status.
refused() {
  local wanted=$1 got
  shift
  got=$(curl --silent --output /dev/null --write-out '%{http_code}' "$@")
  printf '$ curl %s → %s\n' "$*" "$got"
  [ "$got" = "$wanted" ] || { echo "expected $wanted"; exit 1; }
}
json='Content-Type: application/json'
# What a command line holds, everybody on the machine can read: tokens and passwords go through files of our own.
private=$(mktemp -d)
trap 'rm -rf "$private"' EXIT
chmod 700 "$private"
# Keeps the header with the token of the last answer in a file, under a name.
keep_token() { (umask 077 && printf 'Authorization: Bearer %s\n' "$(member token <<<"$answer")" >"$private/$1"); }
# A body with a password, in a file.
keep_login() { (umask 077 && printf '{"username": "%s", "password": "%s"}' "$1" "$2" >"$private/login"); }

step 'B1 a server that says hello'
say "$shop/hello"

admin=(-H "$json") user=(-H "$json") id=7
if [ "$auth" = accounts ]; then
  step 'signing up and in'
  name="student-$RANDOM$RANDOM"
  keep_login "$name" 'correct horse'
  say -X POST "$shop/users" -H "$json" -d "@$private/login"
  id=$(member user_id <<<"$answer")
  say -X POST "$shop/login" -H "$json" -d "@$private/login" >/dev/null
  keep_token user
  user+=(-H "@$private/user")
  keep_login admin "$ADMIN_PASSWORD"
  say -X POST "$shop/login" -H "$json" -d "@$private/login" >/dev/null
  keep_token admin
  admin+=(-H "@$private/admin")
  auditor=("${admin[@]}")
else
  (umask 077 && printf 'Authorization: Bearer %s\n' "${OPERATOR_TOKEN:?is needed for the audit}" >"$private/operator")
  auditor=(-H "@$private/operator")
fi

step 'B4 products'
say -X POST "$shop/products" "${admin[@]}" -d '{"name": "Tablet", "price": 299.99, "category": "electronics", "stock": 5}'
product=$(sed -E 's/^\{"id":"([^"]*)".*/\1/' <<<"$answer")
say "$shop/products?category=electronics&inStock=true"
say -X PUT "$shop/products/$product" "${admin[@]}" -d '{"price": 249.99}'
say "$other/products/$product"
[ "$(member price <<<"$answer")" = 249.99 ]

step 'B4 the cart'
say -X POST "$shop/cart/$id" "${user[@]}" -d "{\"productId\": \"$product\", \"quantity\": 2}"
say -X POST "$shop/cart/$id" "${user[@]}" -d '{"productId": 6, "quantity": 1}'
say -X DELETE "$shop/cart/$id/item/6" "${user[@]}"
say "$other/cart/$id" "${user[@]}"
[ "$(sed -E 's/.*"total":([0-9.]*).*/\1/' <<<"$answer")" = 499.98 ]

step 'B4 the order, twice with the same key: it happens once'
key="walk-$RANDOM$RANDOM"
for _ in 1 2; do
  say -X POST "$shop/orders" "${user[@]}" -H "Idempotency-Key: $key" \
    -d "{\"userId\": \"$id\", \"items\": [{\"productId\": \"$product\", \"quantity\": 2}], \"cardNumber\": \"$card\"}"
  [ "$(member status <<<"$answer")" = paid ]
done
say "$shop/orders/$id" "${user[@]}"
say "$shop/products/$product"
[ "$(sed -E 's/.*"stock":([0-9]*).*/\1/' <<<"$answer")" = 3 ]
if [ "$auth" = open ]; then
  step 'B4 an order without a card'
  say -X POST "$shop/orders" -H "$json" -d "{\"items\": [{\"productId\": \"$product\", \"quantity\": 1}]}"
  [ "$(member status <<<"$answer")" = confirmed ]
fi

step 'clear refusals'
refused 422 -X POST "$shop/products" "${admin[@]}" -d '{"name": "", "price": -1}'
refused 409 -X POST "$shop/orders" "${user[@]}" -d "{\"userId\": \"$id\", \"items\": [{\"productId\": \"$product\", \"quantity\": 9}], \"cardNumber\": \"$card\"}"
refused 402 -X POST "$shop/orders" "${user[@]}" -d "{\"userId\": \"$id\", \"items\": [{\"productId\": \"$product\", \"quantity\": 1}], \"cardNumber\": \"4000 0000 0000 9995\"}"
refused 404 "$shop/products/nothing"

step 'B6 a server that is not there: the other one has everything'
refused 000 --connect-timeout 1 http://127.0.0.1:1/products || true
say "$other/orders/$id" "${user[@]}"

step 'B4 taking it off the shelves'
say -X DELETE "$shop/products/$product" "${admin[@]}"
refused 404 "$other/products/$product"
say "$shop/admin/audit" "${auditor[@]}"
[ "$(member ok <<<"$answer")" = true ]
echo
echo 'All of it works.'
