import HSMRemotes
import Synchronization

/// Who asks a store, looked for anew when the store refuses: a daemon outlives credentials that end, and those that were
/// there when it began. Every method may be called on any thread, and may block.
final class StoreCredentials: Sendable {
    private struct State {
        var chain: CredentialChain
        var looked = ContinuousClock.now
    }

    /// What is refused for another reason than its age is not looked for with each request.
    private static let pause = Duration.seconds(5)
    /// Requests that are on their way when credentials end would be refused.
    private static let margin = Duration.seconds(60)
    private let state: Mutex<State>

    init(_ chain: CredentialChain) { state = Mutex(State(chain: chain)) }

    /// Those that requests are to be signed with now; nil: requests are not signed.
    func current() -> RequestSignature.Credentials? {
        state.withLock { state in
            if let end = state.chain.end, end - Self.margin < .now { Self.look(&state) }
            return state.chain.credentials
        }
    }

    /// The store refused a request with `used`: others, where there are some by now.
    func others(than used: RequestSignature.Credentials?) -> RequestSignature.Credentials? {
        state.withLock { state in
            if state.chain.credentials == used { Self.look(&state) }
            return state.chain.credentials == used ? nil : state.chain.credentials
        }
    }

    /// Under the lock: who else wants them needs what comes of it.
    private static func look(_ state: inout State) {
        guard ContinuousClock.now - state.looked > pause else { return }
        state.looked = .now
        // What cannot be read now does not make the old ones wrong.
        if let chain = try? state.chain.again(), chain.credentials != nil { state.chain = chain }
    }
}
