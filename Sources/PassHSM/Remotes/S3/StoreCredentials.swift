import HSMCore
import HSMSystem
import NIOConcurrencyHelpers

/// The credentials for a store. They are looked up again before they expire, and when the store refuses them, because a
/// daemon outlives the credentials that it started with. Every method may be called on any thread.
final class StoreCredentials: Sendable {
    private struct State {
        var chain: CredentialChain
        var held: TemporaryCredentials?
        /// The error of the last look-up.
        var failure: FillError?
        /// When the last look-up began.
        var looked: ContinuousClock.Instant?
        /// The look-up that is under way; other requests wait for the same one.
        var look: Task<Void, Never>?

        /// Whether the held credentials expire within `time`. False when there are none, or they do not expire.
        func ends(within time: Duration) -> Bool { held?.end.map { $0 - time < .now } ?? false }

        /// The credentials to sign a request with, or the error to fail it with.
        var outcome: Result<RequestSignature.Credentials?, FillError> {
            guard let failure, held == nil || ends(within: .zero) else { return .success(held?.credentials) }
            let pause = failure.code == .io ? shortPause : nil
            return .failure(FillError(failure.code, failure.reason, failure.cause, retryAfter: pause))
        }
    }

    /// Not every refused request starts a look-up, since the cause may be another than expired credentials. Credentials
    /// that their service reports as valid are not looked up again for a minute.
    private static let pause = Duration.seconds(5)
    private static let longPause = Duration.seconds(60)
    /// After a service's own error, which may pass.
    private static let shortPause = Duration.seconds(1)
    /// New credentials are looked up this long before the old ones expire.
    private static let margin = Duration.seconds(60)
    /// Credentials that expire this soon are not used any more, because a request that is under way would be refused.
    private static let lastMargin = Duration.seconds(10)
    /// Look-ups may block while a program runs.
    private static let pool = BlockingPool(name: "credentials", limit: 2)
    private let services: CredentialServices
    private let state: NIOLockedValueBox<State>

    init(_ chain: CredentialChain, _ services: CredentialServices) {
        self.services = services
        var state = State(chain: chain)
        switch chain.source {
        case .keys(let keys): (state.held, state.looked) = (TemporaryCredentials(keys), .now)
        case nil: state.looked = .now
        default: break
        }
        self.state = NIOLockedValueBox(state)
    }

    /// The credentials to sign requests with now; nil when requests are not signed.
    ///
    /// - Throws: when credentials are needed and cannot be obtained.
    func current() async throws(FillError) -> RequestSignature.Credentials? {
        let look = state.withLockedValue { state in
            let isFresh = state.looked != nil && state.failure == nil && !state.ends(within: Self.margin)
            let look = isFresh ? state.look : begin(&state)
            return state.held == nil || state.ends(within: Self.lastMargin) ? look : nil
        }
        await look?.value
        return try state.withLockedValue(\.outcome).get()
    }

    /// Lets the next request look the credentials up again, even if the held ones may be valid.
    func lookAnew() { state.withLockedValue { $0.looked = nil } }

    /// To be called when the store refused a request with `used`. Returns other credentials, if there are any by now.
    func others(than used: RequestSignature.Credentials?) async -> RequestSignature.Credentials? {
        await state.withLockedValue { $0.held?.credentials == used ? begin(&$0) : nil }?.value
        let held = state.withLockedValue(\.held?.credentials)
        return held == used ? nil : held
    }

    /// Starts a look-up, unless the last one was just now.
    private func begin(_ state: inout State) -> Task<Void, Never>? {
        if let look = state.look { return look }
        let isGood = state.failure == nil && state.held?.end != nil && !state.ends(within: Self.margin)
        let pause = state.failure?.code == .io ? Self.shortPause : isGood ? Self.longPause : Self.pause
        if let looked = state.looked, ContinuousClock.now - looked <= pause { return nil }
        state.looked = .now
        let look = Task(executorPreference: Self.pool) { await self.renew() }
        state.look = look
        return look
    }

    private func renew() async {
        let old = state.withLockedValue(\.chain)
        // If the files cannot be read now, the old settings still count.
        let chain = (try? old.again()) ?? old
        var found: TemporaryCredentials?
        var failure: FillError?
        if let source = chain.source {
            do throws(FillError) { found = try await services.credentials(from: source) } catch { failure = error }
        }
        state.withLockedValue { state in
            state.look = nil
            state.failure = failure
            if let found { (state.chain, state.held) = (chain, found) }
        }
    }
}
