//! Requests to a repository, with credentials where the registry wants them.

use reqwest::{Response, StatusCode, header::HeaderMap};

use crate::{
    Error, RegistryAccess, RegistryRepository,
    transport::{Request, registry_message, repeat},
};

impl RegistryRepository {
    /// Sends a request with credentials, if the registry wants them. The response may have any status but 401, and
    /// but those that are repeated.
    pub(crate) async fn send(
        &self,
        request: &Request,
        access: RegistryAccess,
        mount_from: Option<&str>,
    ) -> Result<Response, Error> {
        let client = self.client.state();
        // Credentials belong to the registry alone: an upload may continue at another host.
        let is_own = request.url.origin() == self.registry.base(client).await?.origin();
        let scopes = self.scopes(access, mount_from);
        let mut authorization = match is_own {
            true => self.registry.tokens.cached(&scopes).await,
            false => None,
        };
        let mut is_refreshed = false;
        loop {
            let response = repeat(&self.registry, client, request, authorization.as_ref()).await?;
            if response.status() != StatusCode::UNAUTHORIZED || !is_own {
                return Ok(response);
            }
            if is_refreshed {
                return Err(self.unauthorized(access).await);
            }
            is_refreshed = true;
            let challenges = challenges(response.headers());
            authorization = self.authorize(&challenges, &scopes, authorization, access).await?;
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
            had_credentials: self.registry.tokens.has_login().await,
        }
    }

    /// The error of an unsuccessful response.
    pub(crate) async fn failed(&self, response: Response, what: &str, access: RegistryAccess) -> Error {
        let host = self.registry.host.clone();
        match response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.unauthorized(access).await,
            StatusCode::NOT_FOUND if access == RegistryAccess::Pull => {
                Error::NotFound { host, what: what.to_owned() }
            }
            status => Error::Status {
                host,
                what: what.to_owned(),
                status: status.as_u16(),
                message: registry_message(response).await,
            },
        }
    }
}

/// The `WWW-Authenticate` headers.
fn challenges(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(reqwest::header::WWW_AUTHENTICATE);
    values.iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
}
