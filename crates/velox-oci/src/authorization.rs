//! How a registry is told who asks: <https://distribution.github.io/distribution/spec/auth/token/>.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::{
    Method, Response, StatusCode,
    header::{CONTENT_TYPE, WWW_AUTHENTICATE},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use url::{Url, form_urlencoded};

use crate::{
    Error, RegistryAccess, RegistryRepository,
    client::{AuthorizationValue, is_acceptable},
    credentials::RegistryLogin,
    transport::{Request, RequestBody},
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
    /// Sends a request with credentials, if the registry wants them. The response may have any status but 401, and
    /// but those that are repeated.
    pub(crate) async fn send(
        &self,
        request: &Request,
        access: RegistryAccess,
        mount_from: Option<&str>,
    ) -> Result<Response, Error> {
        // Credentials belong to the registry alone: an upload may continue at another host, a download may be
        // redirected to one.
        let is_own = |url: &Url, base: &Url| url.origin() == base.origin();
        let base = self.base().await?;
        let scopes = self.scopes(access, mount_from);
        let mut authorization = match is_own(&request.url, base) {
            true => self.registry.authorizations.lock().await.by_scopes.get(&scopes).cloned(),
            false => None,
        };
        let mut is_refreshed = false;
        loop {
            let response = self.repeat(request, authorization.as_ref()).await?;
            let is_challenge = response.status() == StatusCode::UNAUTHORIZED;
            if !is_challenge || ![&request.url, response.url()].into_iter().all(|url| is_own(url, base)) {
                return Ok(response);
            }
            if is_refreshed {
                return Err(self.unauthorized(access).await);
            }
            is_refreshed = true;
            let challenges = response.headers().get_all(WWW_AUTHENTICATE);
            let challenge = Challenge::preferred(challenges.iter().filter_map(|it| it.to_str().ok()));
            authorization = Some(self.authorize(challenge, &scopes, authorization, access).await?);
        }
    }

    fn scopes(&self, access: RegistryAccess, mount_from: Option<&str>) -> Vec<String> {
        let actions = match access {
            RegistryAccess::Pull => "pull",
            RegistryAccess::Push => "pull,push",
        };
        let own = format!("repository:{}:{actions}", self.name);
        std::iter::once(own).chain(mount_from.map(|from| format!("repository:{from}:pull"))).collect()
    }

    pub(crate) async fn unauthorized(&self, access: RegistryAccess) -> Error {
        Error::Unauthorized {
            host: self.registry.host.clone(),
            repository: self.name.clone(),
            access,
            had_credentials: self.namespace_login().is_some()
                || matches!(self.registry.authorizations.lock().await.login, Some(Some(_))),
        }
    }

    fn namespace_login(&self) -> Option<RegistryLogin> {
        self.options().credentials.namespace_login(&self.registry.host, &self.name)
    }

    /// Answers a challenge. `rejected` is what the registry didn't accept.
    async fn authorize(
        &self,
        challenge: Option<Challenge>,
        scopes: &[String],
        rejected: Option<AuthorizationValue>,
        access: RegistryAccess,
    ) -> Result<AuthorizationValue, Error> {
        // Held during the exchange: parallel requests use one token.
        let mut known = self.registry.authorizations.lock().await;
        if let Some(value) = known.by_scopes.get(scopes)
            && rejected.as_ref().is_none_or(|rejected| !Arc::ptr_eq(rejected, value))
        {
            return Ok(Arc::clone(value));
        }
        known.by_scopes.remove(scopes);
        let own = self.namespace_login();
        if own.is_none() && known.login.is_none() {
            known.login = Some(self.options().credentials.login(&self.registry.host).await?);
        }
        let login = own.as_ref().or(known.login.as_ref().and_then(Option::as_ref));
        let value = match (challenge, login) {
            (Some(Challenge::Basic), Some(RegistryLogin::Password { user, password }))
                if rejected.is_none() =>
            {
                Some(basic(user, password))
            }
            (Some(Challenge::Basic), _) => None,
            (Some(Challenge::Bearer { realm, service, scope }), login) => {
                let mut scopes = scopes.to_vec();
                scopes.extend(scope.filter(|scope| !scopes.contains(scope)));
                self.token(self.realm(&realm).await?, service.as_deref(), &scopes, login).await?
            }
            (None, _) => return Err(self.invalid("it asks for an unknown kind of authentication")),
        };
        let Some(value) = value.map(Arc::new) else {
            drop(known);
            return Err(self.unauthorized(access).await);
        };
        known.by_scopes.insert(scopes.to_vec(), Arc::clone(&value));
        Ok(value)
    }

    async fn realm(&self, realm: &str) -> Result<Url, Error> {
        let base = self.base().await?;
        let url =
            base.join(realm).map_err(|_| self.invalid("the address of its token service is not a URL"))?;
        match is_acceptable(&url, base) {
            true => Ok(url),
            false => Err(self.invalid("its token service doesn't use HTTPS")),
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
            form.extend_pairs(service.map(|service| ("service", service)));
            Request::new(Method::POST, url)
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(RequestBody::Bytes(form.finish().into()))
        } else {
            let service = service.map(|service| ("service", service));
            let scopes = scopes.iter().map(|scope| ("scope", scope.as_str()));
            url.query_pairs_mut().extend_pairs(service.into_iter().chain(scopes));
            if let Some(RegistryLogin::Password { user, password }) = login {
                authorization = Some(Arc::new(basic(user, password)));
            }
            Request::get(url)
        };
        let response = self.repeat(&request, authorization.as_ref()).await?;
        match response.status().as_u16() {
            200 => {}
            400 | 401 | 403 => return Ok(None),
            status => return Err(self.invalid(format!("its token service answered with status {status}"))),
        }
        let body = self.body(response, "a token", MAX_TOKEN_BYTES).await?;
        let token = serde_json::from_slice::<TokenAnswer>(&body)
            .ok()
            .and_then(|answer| answer.token.or(answer.access_token))
            .ok_or_else(|| self.invalid("its token service sent no token"))?;
        Ok(Some(format!("Bearer {}", token.expose_secret()).into()))
    }
}

fn basic(user: &str, password: &SecretString) -> SecretString {
    let pair = BASE64_STANDARD.encode(format!("{user}:{}", password.expose_secret()));
    format!("Basic {pair}").into()
}

/// Whether a `WWW-Authenticate` header has a challenge that can be answered; for the fuzz target only.
#[doc(hidden)]
#[must_use]
pub fn is_known_challenge(header: &str) -> bool {
    Challenge::preferred([header]).is_some()
}

impl Challenge {
    /// The challenge to answer: a token rather than the password.
    fn preferred<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut basic = None;
        for challenge in
            headers.into_iter().filter_map(|text| http_auth::parse_challenges(text).ok()).flatten()
        {
            let parameter = |name: &str| {
                let (_, value) = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
                Some(value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Self::Basic);
            } else if challenge.scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = parameter("realm")
            {
                return Some(Self::Bearer {
                    realm,
                    service: parameter("service"),
                    scope: parameter("scope"),
                });
            }
        }
        basic
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_preferred() {
        let parsed = |headers: &[&str]| Challenge::preferred(headers.iter().copied());
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
