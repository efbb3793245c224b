//! Who we are to a server or registry: nobody, a user with a password, or the bearer of a token.
//!
//! For a registry, in this order: the options, `CARDEA_REGISTRY_USERNAME` and `CARDEA_REGISTRY_PASSWORD`, what `docker
//! login` left (its configuration and credential programs), nobody. Files are read anew for each client, so that a token
//! that is rotated is picked up.
//! Limits: [`limits::SECRET_FILE_BYTES_MAX`] per file.
//! Never does: showing a secret in `Debug`, in an error or in a log, or taking one from a command line.

use std::env;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use docker_credential::{CredentialRetrievalError, DockerCredential};
use http::HeaderValue;

use super::Options;
use super::error::RemoteError;
use crate::limits;

/// User name and password of registries, for programs that run in pipelines.
const USERNAME_VARIABLE: &str = "CARDEA_REGISTRY_USERNAME";
const PASSWORD_VARIABLE: &str = "CARDEA_REGISTRY_PASSWORD";

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Credentials {
    Nobody,
    User {
        name: String,
        password: Secret,
    },
    Token(Secret),
    /// What a credential program exchanges for a token at the registry's token server.
    Refresh(Secret),
}

impl Secret {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl Credentials {
    /// Those for an HTTPS server.
    pub(super) fn of_server(options: &Options) -> Result<Self, RemoteError> {
        match (&options.token_file, &options.username, &options.password_file) {
            (None, None, None) => Ok(Self::Nobody),
            (Some(token), None, None) => Ok(Self::Token(secret(token)?)),
            (None, Some(name), Some(password)) => {
                Ok(Self::User { name: name.clone(), password: secret(password)? })
            }
            (Some(_), _, _) => {
                Err(RemoteError::Credentials("give a token or a user name with a password, not both".into()))
            }
            (None, Some(_), None) => {
                Err(RemoteError::Credentials("a user name needs a file with its password".into()))
            }
            (None, None, Some(_)) => {
                Err(RemoteError::Credentials("a file with a password needs the user name".into()))
            }
        }
    }

    /// Those for a registry.
    pub(super) async fn of_registry(options: &Options, registry: &str) -> Result<Self, RemoteError> {
        let given = Self::of_server(options)?;
        if given != Self::Nobody {
            return Ok(given);
        }
        match (env::var(USERNAME_VARIABLE), env::var(PASSWORD_VARIABLE)) {
            (Ok(name), Ok(password)) => return Ok(Self::User { name, password: Secret(password) }),
            (Err(_), Err(_)) => {}
            (Ok(_), Err(_)) | (Err(_), Ok(_)) => {
                return Err(RemoteError::Credentials(format!(
                    "set both {USERNAME_VARIABLE} and {PASSWORD_VARIABLE}"
                )));
            }
        }
        let registry = registry.to_owned();
        // Credential programs are started and waited for.
        match tokio::task::spawn_blocking(move || of_docker(&registry)).await {
            Ok(found) => found,
            Err(_) => Err(RemoteError::Credentials("docker's configuration could not be read".into())),
        }
    }

    /// The `Authorization` header that says so directly.
    pub(super) fn header(&self) -> Result<Option<HeaderValue>, RemoteError> {
        let text = match self {
            Self::Nobody | Self::Refresh(_) => return Ok(None),
            Self::User { name, password } => {
                format!("Basic {}", STANDARD.encode(format!("{name}:{}", password.reveal())))
            }
            Self::Token(token) => format!("Bearer {}", token.reveal()),
        };
        let Ok(mut value) = HeaderValue::try_from(text) else {
            return Err(RemoteError::Credentials(
                "the token holds characters that no header can carry".into(),
            ));
        };
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

fn of_docker(registry: &str) -> Result<Credentials, RemoteError> {
    let directory = env::var_os("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".docker")));
    let Some(config) = directory.map(|directory| directory.join("config.json")).filter(|file| file.exists())
    else {
        return Ok(Credentials::Nobody);
    };
    match docker_credential::get_credential(docker_key(registry)) {
        Ok(DockerCredential::UsernamePassword(name, password)) => {
            Ok(Credentials::User { name, password: Secret(password) })
        }
        Ok(DockerCredential::IdentityToken(token)) => Ok(Credentials::Refresh(Secret(token))),
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(Credentials::Nobody),
        // What credential programs say for a registry that they do not know; docker goes on as nobody, too.
        Err(CredentialRetrievalError::HelperFailure { stdout, .. })
            if stdout.contains("credentials not found") =>
        {
            Ok(Credentials::Nobody)
        }
        // Its output may hold the secret.
        Err(CredentialRetrievalError::HelperFailure { helper, .. }) => Err(RemoteError::Credentials(
            format!("`{helper} get` failed for `{registry}`: run it by hand to see why"),
        )),
        Err(error) => {
            Err(RemoteError::Content { path: config, why: format!("gives no credentials: {error}") })
        }
    }
}

/// The name under which docker keeps the credentials of a registry.
fn docker_key(registry: &str) -> &str {
    match registry {
        "docker.io" | "index.docker.io" => "https://index.docker.io/v1/",
        _ => registry,
    }
}

pub(crate) fn secret(path: &Path) -> Result<Secret, RemoteError> {
    let text = read(path, limits::SECRET_FILE_BYTES_MAX)?;
    let refused = |why: &str| RemoteError::Content { path: path.to_owned(), why: why.to_owned() };
    let text = String::from_utf8(text).map_err(|_| refused("holds no text"))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() { Err(refused("is empty")) } else { Ok(Secret(text.to_owned())) }
}

/// A whole file, bounded.
pub(super) fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, RemoteError> {
    let fault = |source| RemoteError::File { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(fault)?.take(bytes_max + 1).read_to_end(&mut bytes).map_err(fault)?;
    if bytes.len() as u64 > bytes_max {
        return Err(RemoteError::TooLarge { what: path.display().to_string(), bytes_max });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(dir: &Path, content: &str) -> Options {
        let file = dir.join("secret");
        std::fs::write(&file, content).unwrap();
        Options { username: Some("ci".into()), password_file: Some(file), ..Options::default() }
    }

    #[test]
    fn a_secret_is_shown_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let found = Credentials::of_server(&options(dir.path(), "geheim\n")).unwrap();
        assert!(!format!("{found:?}").contains("geheim"), "{found:?}");
        let header = found.header().unwrap().unwrap();
        assert!(header.is_sensitive());
        assert_eq!(header.to_str().unwrap(), "Basic Y2k6Z2VoZWlt", "the end of the line is no part of it");
        assert!(!format!("{header:?}").contains("Y2k6"), "{header:?}");
        let token = Credentials::Token(Secret("a\nb".into())).header().unwrap_err();
        assert!(!token.to_string().contains("a\nb"), "{token}");
    }

    #[test]
    fn half_given_credentials_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let whole = options(dir.path(), "x");
        let faults = [
            Options { username: None, ..whole.clone() },
            Options { password_file: None, ..whole.clone() },
            Options { token_file: whole.password_file.clone(), ..whole },
            options(dir.path(), "\n"),
        ];
        for fault in faults {
            assert!(Credentials::of_server(&fault).is_err(), "{fault:?}");
        }
        let missing = Options { token_file: Some(dir.path().join("missing")), ..Options::default() };
        assert!(matches!(Credentials::of_server(&missing), Err(RemoteError::File { .. })));
    }
}
