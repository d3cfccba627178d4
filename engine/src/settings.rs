//! Changing the settings of a log: one change at a time, so that none takes back what another one has set.

use std::sync::Arc;

use lanterman_format::settings::Settings;
use lanterman_format::weakened;

use crate::core::Core;
use crate::edit::Edit;
use crate::error::Result;
use crate::fork::encoded;
use crate::log::LogState;

impl Core {
    /// Changes the settings of a log as they are now, durably.
    ///
    /// # Errors
    /// What `change` says, settings that are too long together, what a commit may meet.
    pub(crate) fn change_settings(
        &self,
        log: &Arc<LogState>,
        change: impl FnOnce(&mut Settings) -> Result<()>,
    ) -> Result<()> {
        let _alone = (!weakened!("settings-together")).then(|| log.settings_change().lock());
        let mut settings = (*log.settings()).clone();
        change(&mut settings)?;
        let encoded = encoded(&settings)?;
        let edit = Edit::SetSettings {
            log: Arc::clone(log),
            settings,
            encoded,
        };
        self.commit_edits(vec![edit]).map(|_| ())
    }
}
