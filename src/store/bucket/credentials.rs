//! Who to be to the bucket, which may change while it is in use: a key whose files are replaced, another role.

use std::pin::Pin;
use std::sync::Arc;

use object_store::CredentialProvider;
use object_store::aws::{AwsCredential, AwsCredentialProvider};
use parking_lot::RwLock;

/// The source of credentials in force. Signed is what is sent after a change; what is on its way stays as it is.
#[derive(Debug)]
pub(super) struct Credentials {
    source: RwLock<AwsCredentialProvider>,
}

impl Credentials {
    pub(super) fn new(source: AwsCredentialProvider) -> Arc<Self> {
        Arc::new(Self { source: RwLock::new(source) })
    }

    /// From now on those of `source`.
    pub(super) fn replace(&self, source: AwsCredentialProvider) {
        *self.source.write() = source;
    }
}

impl CredentialProvider for Credentials {
    type Credential = AwsCredential;

    fn get_credential<'a, 'future>(
        &'a self,
    ) -> Pin<Box<dyn Future<Output = object_store::Result<Arc<AwsCredential>>> + Send + 'future>>
    where
        'a: 'future,
        Self: 'future,
    {
        let source = Arc::clone(&*self.source.read());
        Box::pin(async move { source.get_credential().await })
    }
}
