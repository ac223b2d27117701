import HSMCore
import Testing

@Suite struct CircuitTests {
    private let start = ContinuousClock.now

    /// Requests that begin after so many milliseconds each, and fail a millisecond later.
    private func fail(_ circuit: inout Circuit, at milliseconds: Int...) -> [Bool] {
        milliseconds.map { time in
            let began = start + .milliseconds(time)
            return circuit.failed("failure at \(time)", began: began, now: began + .milliseconds(1))
        }
    }

    @Test func `it opens once after several failures in a row that took long enough, and says since when`() {
        var circuit = Circuit()
        #expect(fail(&circuit, at: 0, 100, 300) == [false, false, false])
        let probe = circuit.nextProbe()
        #expect(!circuit.isOpen && probe == nil)
        #expect(fail(&circuit, at: 700, 800) == [true, false])
        #expect(circuit.isOpen)
        #expect(circuit.outage?.since == start && circuit.outage?.cause == "failure at 800")
    }

    @Test func `many failures at once are a blip, and few are no proof`() {
        var circuit = Circuit()
        #expect(fail(&circuit, at: 0, 0, 0, 0, 0, 0, 0, 0).allSatisfy { !$0 })
        _ = circuit.answered()
        #expect(fail(&circuit, at: 0, 5_000, 60_000).allSatisfy { !$0 })
        #expect(!circuit.isOpen)
    }

    @Test func `silence counts from the beginning of the request that met it`() {
        var circuit = Circuit()
        let end = start + .seconds(30)
        let opened = (0..<4).map { _ in circuit.failed("silence", began: start, now: end) }
        #expect(opened == [false, false, false, true])
    }

    @Test func `one answer between failures begins the count anew, and one after them closes it`() {
        var circuit = Circuit()
        _ = fail(&circuit, at: 0, 100, 300)
        var wasOpen = circuit.answered()
        #expect(!wasOpen)
        #expect(circuit.outage == nil)
        #expect(fail(&circuit, at: 700, 800, 900, 1300) == [false, false, false, true])
        wasOpen = circuit.answered()
        let probe = circuit.nextProbe()
        #expect(wasOpen && !circuit.isOpen && circuit.outage == nil && probe == nil)
    }

    @Test func `probes come less and less often, but always, and begin anew with the next outage`() {
        var policy = Circuit.Policy()
        (policy.firstPause, policy.longestPause) = (.seconds(1), .seconds(5))
        var circuit = Circuit(policy)
        for _ in 0..<2 {
            _ = fail(&circuit, at: 0, 100, 300, 700)
            let pauses = (0..<100).map { _ in circuit.nextProbe() }
            #expect(pauses.prefix(5) == [.seconds(1), .seconds(2), .seconds(4), .seconds(5), .seconds(5)])
            #expect(pauses.suffix(96).allSatisfy { $0 == .seconds(5) })
            _ = circuit.answered()
        }
    }
}
