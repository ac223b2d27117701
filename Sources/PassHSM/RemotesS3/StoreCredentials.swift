import HSMCore
import HSMRemotes
import HSMSystem
import NIOConcurrencyHelpers

/// Who asks a store, looked for anew before credentials end, and when the store refuses: a daemon outlives those that were
/// there when it began. Every method may be called on any thread.
final class StoreCredentials: Sendable {
    private struct State {
        var chain: CredentialChain
        var held: TemporaryCredentials?
        /// Why the last look had no success.
        var failure: FillError?
        /// When the last look began.
        var looked: ContinuousClock.Instant?
        /// The one that is under way: who else wants credentials needs what comes of it.
        var look: Task<Void, Never>?

        /// Whether what is held ends within `time`; false when nothing is.
        func ends(within time: Duration) -> Bool { held?.end.map { $0 - time < .now } ?? false }

        /// What a request is to be signed with, as far as is known.
        var outcome: Result<RequestSignature.Credentials?, FillError> {
            guard let failure, held == nil || ends(within: .zero) else { return .success(held?.credentials) }
            let pause = failure.code == .io ? shortPause : nil
            return .failure(FillError(failure.code, failure.reason, failure.cause, retryAfter: pause))
        }
    }

    /// What is refused for another reason than its age is not looked for with each request; nor, for a minute, what the
    /// services that gave it say is good.
    private static let pause = Duration.seconds(5)
    private static let longPause = Duration.seconds(60)
    /// A service's own fault may pass.
    private static let shortPause = Duration.seconds(1)
    /// Others are looked for so long before credentials end.
    private static let margin = Duration.seconds(60)
    /// Requests that are on their way when credentials end would be refused.
    private static let lastMargin = Duration.seconds(10)
    /// A process is waited for.
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

    /// Those that requests are to be signed with now; nil: requests are not signed.
    ///
    /// - Throws: when there are to be some, and are none.
    func current() async throws(FillError) -> RequestSignature.Credentials? {
        let look = state.withLockedValue { state in
            let isFresh = state.looked != nil && state.failure == nil && !state.ends(within: Self.margin)
            let look = isFresh ? state.look : begin(&state)
            return state.held == nil || state.ends(within: Self.lastMargin) ? look : nil
        }
        await look?.value
        return try state.withLockedValue(\.outcome).get()
    }

    /// Has them looked for at the next request, although those that there are may be good.
    func lookAnew() { state.withLockedValue { $0.looked = nil } }

    /// The store refused a request with `used`: others, where there are some by now.
    func others(than used: RequestSignature.Credentials?) async -> RequestSignature.Credentials? {
        await state.withLockedValue { $0.held?.credentials == used ? begin(&$0) : nil }?.value
        let held = state.withLockedValue(\.held?.credentials)
        return held == used ? nil : held
    }

    /// A look, unless the last one was just now.
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
        // What cannot be read now does not make the old ones wrong.
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
