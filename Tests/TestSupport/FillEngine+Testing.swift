import HSMCore

extension FillEngine.Configuration {
    /// Fetches only what is asked for, and tries again at once.
    package static var prompt: FillEngine.Configuration {
        var configuration = FillEngine.Configuration()
        configuration.readAhead = 0
        configuration.retries.firstPause = .milliseconds(1)
        return configuration
    }
}
