import Glibc
import HSMSystem
import Testing

extension MountTests.FrontEnds {
    @Test("A scenario ends the same with either front end", arguments: Scenario.all, FrontEnd.allCases)
    func scenario(_ scenario: Scenario, frontEnd: FrontEnd) throws {
        try scenario.run(frontEnd)
    }
}

extension Scenario {
    static let all = reading + changing + failing + managing
}
