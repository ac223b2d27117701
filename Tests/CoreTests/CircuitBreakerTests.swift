import HSMCore
import Testing

@Suite struct CircuitBreakerTests {
    private let start = ContinuousClock.now

    /// Requests that begin after so many milliseconds each, and fail a millisecond later.
    private func fail(_ breaker: inout CircuitBreaker, at milliseconds: Int...) -> [Bool] {
        milliseconds.map { time in
            let began = start + .milliseconds(time)
            return breaker.failed("failure at \(time)", began: began, now: began + .milliseconds(1))
        }
    }

    @Test func `it opens once after several failures in a row that took long enough, and says since when`() {
        var breaker = CircuitBreaker()
        #expect(fail(&breaker, at: 0, 100, 300) == [false, false, false])
        let probe = breaker.nextProbe()
        #expect(!breaker.isOpen && probe == nil)
        #expect(fail(&breaker, at: 700, 800) == [true, false])
        #expect(breaker.isOpen)
        #expect(breaker.outage?.since == start && breaker.outage?.cause == "failure at 800")
    }

    @Test func `many failures at once are a blip, and few are no proof`() {
        var breaker = CircuitBreaker()
        #expect(fail(&breaker, at: 0, 0, 0, 0, 0, 0, 0, 0).allSatisfy { !$0 })
        _ = breaker.answered()
        #expect(fail(&breaker, at: 0, 5_000, 60_000).allSatisfy { !$0 })
        #expect(!breaker.isOpen)
    }

    @Test func `silence counts from the beginning of the request that met it`() {
        var breaker = CircuitBreaker()
        let end = start + .seconds(30)
        let opened = (0..<4).map { _ in breaker.failed("silence", began: start, now: end) }
        #expect(opened == [false, false, false, true])
    }

    @Test func `one answer between failures begins the count anew, and one after them closes it`() {
        var breaker = CircuitBreaker()
        _ = fail(&breaker, at: 0, 100, 300)
        var wasOpen = breaker.answered()
        #expect(!wasOpen)
        #expect(breaker.outage == nil)
        #expect(fail(&breaker, at: 700, 800, 900, 1300) == [false, false, false, true])
        wasOpen = breaker.answered()
        let probe = breaker.nextProbe()
        #expect(wasOpen && !breaker.isOpen && breaker.outage == nil && probe == nil)
    }

    @Test func `probes come less and less often, but always, and begin anew with the next outage`() {
        var policy = CircuitBreaker.Policy()
        (policy.firstPause, policy.maxPause) = (.seconds(1), .seconds(5))
        var breaker = CircuitBreaker(policy)
        for _ in 0..<2 {
            _ = fail(&breaker, at: 0, 100, 300, 700)
            let pauses = (0..<100).map { _ in breaker.nextProbe() }
            #expect(pauses.prefix(5) == [.seconds(1), .seconds(2), .seconds(4), .seconds(5), .seconds(5)])
            #expect(pauses.suffix(96).allSatisfy { $0 == .seconds(5) })
            _ = breaker.answered()
        }
    }
}
