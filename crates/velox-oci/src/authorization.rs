//! How a registry is told who asks: <https://distribution.github.io/distribution/spec/auth/token/>.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::{Method, header::CONTENT_TYPE};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use url::{Url, form_urlencoded};

use crate::{
    Error, RegistryAccess, RegistryRepository,
    credentials::RegistryLogin,
    registry::AuthorizationValue,
    transport::{Request, RequestBody, limited_body, reason, repeat},
};

const MAX_TOKEN_BYTES: usize = 1 << 20;
const CLIENT_ID: &str = "vx";

/// A `WWW-Authenticate` challenge that can be answered.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<SecretString>,
    access_token: Option<SecretString>,
}

impl RegistryRepository {
    /// Answers a challenge. `rejected` is what the registry didn't accept.
    pub(crate) async fn authorize(
        &self,
        challenges: &[String],
        scopes: &[String],
        rejected: Option<AuthorizationValue>,
        access: RegistryAccess,
    ) -> Result<Option<AuthorizationValue>, Error> {
        // Held during the exchange: parallel requests use one token.
        let mut state = self.registry.tokens.0.lock().await;
        if let Some(value) = state.find(scopes)
            && rejected.as_ref().is_none_or(|rejected| !Arc::ptr_eq(rejected, value))
        {
            return Ok(Some(Arc::clone(value)));
        }
        state.by_scopes.remove(scopes);
        if state.login.is_none() {
            let credentials = &self.client.state().options.credentials;
            state.login = Some(credentials.login(&self.registry.host).await?);
        }
        let login = state.login.as_ref().and_then(Option::as_ref);
        let denied = Error::Unauthorized {
            host: self.registry.host.clone(),
            repository: self.name.clone(),
            access,
            had_credentials: login.is_some(),
        };
        let value = match parse(challenges) {
            Some(Challenge::Basic) => match login {
                Some(RegistryLogin::Password { user, password }) if rejected.is_none() => {
                    let value = Arc::new(basic(user, password));
                    state.basic = Some(Arc::clone(&value));
                    return Ok(Some(value));
                }
                _ => return Err(denied),
            },
            Some(Challenge::Bearer { realm, service, scope }) => {
                let mut scopes = scopes.to_vec();
                scopes.extend(scope.filter(|scope| !scopes.contains(scope)));
                let realm = self.realm(&realm).await?;
                self.token(realm, service.as_deref(), &scopes, login).await?.ok_or(denied)?
            }
            None => return Err(self.invalid("it asks for an unknown kind of authentication")),
        };
        let value = Arc::new(value);
        state.by_scopes.insert(scopes.to_vec(), Arc::clone(&value));
        Ok(Some(value))
    }

    async fn realm(&self, realm: &str) -> Result<Url, Error> {
        let base = self.registry.base(self.client.state()).await?;
        let url =
            base.join(realm).map_err(|_| self.invalid("the address of its token service is not a URL"))?;
        match url.scheme() {
            "https" => Ok(url),
            "http" if base.scheme() == "http" => Ok(url),
            _ => Err(self.invalid("its token service doesn't use HTTPS")),
        }
    }

    /// `None`: the token service denies it.
    async fn token(
        &self,
        mut url: Url,
        service: Option<&str>,
        scopes: &[String],
        login: Option<&RegistryLogin>,
    ) -> Result<Option<SecretString>, Error> {
        let mut authorization = None;
        let request = if let Some(RegistryLogin::IdentityToken(token)) = login {
            let mut form = form_urlencoded::Serializer::new(String::new());
            form.append_pair("grant_type", "refresh_token").append_pair("client_id", CLIENT_ID);
            form.append_pair("refresh_token", token.expose_secret()).append_pair("scope", &scopes.join(" "));
            if let Some(service) = service {
                form.append_pair("service", service);
            }
            Request::new(Method::POST, url)
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(RequestBody::Bytes(form.finish().into()))
        } else {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            for scope in scopes {
                query.append_pair("scope", scope);
            }
            drop(query);
            if let Some(RegistryLogin::Password { user, password }) = login {
                authorization = Some(Arc::new(basic(user, password)));
            }
            Request::get(url)
        };
        let client = self.client.state();
        let response = repeat(&self.registry, client, &request, authorization.as_ref()).await?;
        match response.status().as_u16() {
            200 => {}
            400 | 401 | 403 => return Ok(None),
            status => return Err(self.invalid(format!("its token service answered with status {status}"))),
        }
        let network = |error| Error::Network { host: self.registry.host.clone(), reason: reason(&error) };
        let body = limited_body(response, MAX_TOKEN_BYTES).await.map_err(network)?;
        let answer = body.and_then(|body| serde_json::from_slice::<TokenAnswer>(&body).ok());
        let token = answer.and_then(|answer| answer.token.or(answer.access_token));
        let token = token.ok_or_else(|| self.invalid("its token service sent no token"))?;
        Ok(Some(format!("Bearer {}", token.expose_secret()).into()))
    }
}

fn basic(user: &str, password: &SecretString) -> SecretString {
    let pair = BASE64_STANDARD.encode(format!("{user}:{}", password.expose_secret()));
    format!("Basic {pair}").into()
}

/// The challenge to answer: a token rather than the password.
fn parse(headers: &[String]) -> Option<Challenge> {
    let all = headers.iter().filter_map(|header| http_auth::parse_challenges(header).ok()).flatten();
    let known = all.filter_map(|challenge| {
        let parameter = |name: &str| {
            let (_, value) = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
            Some(value.to_unescaped())
        };
        if challenge.scheme.eq_ignore_ascii_case("bearer") {
            let (service, scope) = (parameter("service"), parameter("scope"));
            Some(Challenge::Bearer { realm: parameter("realm")?, service, scope })
        } else {
            challenge.scheme.eq_ignore_ascii_case("basic").then_some(Challenge::Basic)
        }
    });
    let (mut tokens, passwords): (Vec<_>, Vec<_>) =
        known.partition(|challenge| matches!(challenge, Challenge::Bearer { .. }));
    if tokens.is_empty() { passwords.into_iter().next() } else { Some(tokens.swap_remove(0)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_preferred() {
        let parsed =
            |headers: &[&str]| parse(&headers.iter().map(|&text| text.to_owned()).collect::<Vec<_>>());
        let bearer = |scope: Option<&str>| Challenge::Bearer {
            realm: "https://auth.test/token".to_owned(),
            service: Some("registry.test".to_owned()),
            scope: scope.map(str::to_owned),
        };
        let token = "Bearer realm=\"https://auth.test/token\",service=\"registry.test\"";
        assert_eq!(parsed(&["Basic realm=\"x\"", token]), Some(bearer(None)));
        let with_scope = format!("{token},scope=\"repository:a/b:pull,push\"");
        assert_eq!(parsed(&[&with_scope]), Some(bearer(Some("repository:a/b:pull,push"))));
        assert_eq!(parsed(&["basic realm=x"]), Some(Challenge::Basic));
        assert_eq!(parsed(&["Negotiate", "Digest realm=\"x\""]), None);
        assert_eq!(parsed(&["Bearer service=\"x\"", "\"garbage"]), None);
    }
}
