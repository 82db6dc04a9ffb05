//! The page behind `/problems/{code}`: what happened and what to do, for a reader with or without a browser.
//! Invariant: one self-contained document; no scripts, nothing fetched from elsewhere, everything escaped.

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};

use super::{Kind, NOT_FOUND, Problem, Result, by_code};

const STYLE: &str = "body{font:1rem/1.6 system-ui,sans-serif;max-width:38rem;margin:4rem auto;padding:0 1rem;\
color:#222;background:#fff}code{background:#eee;padding:.1em .3em;border-radius:.2em}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}code{background:#333}}";

/// HTML for a browser, plain text for everything that does not ask for HTML.
pub(crate) fn page(code: &str, headers: &HeaderMap) -> Result<Response> {
    let kind = by_code(code).ok_or_else(|| Problem::new(NOT_FOUND, "There is no problem of this name."))?;
    let accept = headers.get(header::ACCEPT).map(HeaderValue::as_bytes);
    let wants_html = accept.is_some_and(|accept| {
        let accept = String::from_utf8_lossy(accept).to_ascii_lowercase();
        accept.contains("text/html")
    });
    let mut response = if wants_html {
        Html(html(kind)).into_response()
    } else {
        text(kind).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'"),
    );
    Ok(response)
}

fn text(kind: &Kind) -> String {
    format!(
        "{} ({}, status {})\n\n{}\n",
        kind.title, kind.code, kind.status, kind.help
    )
}

fn html(kind: &Kind) -> String {
    let (title, code, help) = (escape(kind.title), escape(kind.code), escape(kind.help));
    let status = kind.status;
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n\
<h1>{title}</h1>\n<p><code>{code}</code>, status {status}</p>\n<p>{help}</p>\n\
</main>\n</body>\n</html>\n"
    )
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn markup_is_escaped() {
        assert_eq!(
            escape("<a href='x'>\"&\"</a>"),
            "&lt;a href=&#39;x&#39;&gt;&quot;&amp;&quot;&lt;/a&gt;"
        );
    }
}
