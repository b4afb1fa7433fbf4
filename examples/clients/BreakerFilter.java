import jakarta.servlet.*;
import jakarta.servlet.http.*;
import java.io.IOException;
import java.net.URI;
import java.net.http.*;
import java.time.Duration;
import java.util.Set;

/**
 * Asks the sidecar before every request that may change something, and answers 503 with Retry-After
 * while the breaker rejects. Init parameters: address (localhost:9100), breaker (default), and
 * onNoAnswer (admit, or reject): what holds while no sidecar answers.
 */
public class BreakerFilter extends HttpFilter {
    private static final Set<String> SAFE = Set.of("GET", "HEAD", "OPTIONS", "TRACE");
    private final HttpClient client =
        HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build(); // keeps connections
    private HttpRequest question;
    private boolean onNoAnswer;

    @Override
    public void init() throws ServletException {
        var url = "http://" + parameter("address", "localhost:9100") + "/allowed/" + parameter("breaker", "default");
        question = HttpRequest.newBuilder(URI.create(url)).timeout(Duration.ofMillis(250)).build();
        // The first exchange of a JVM loads classes for longer than that; it spends nothing.
        var first = HttpRequest.newBuilder(URI.create(url + "?peek=1")).timeout(Duration.ofSeconds(5)).build();
        client.sendAsync(first, HttpResponse.BodyHandlers.discarding()).exceptionally(late -> null).join();
        onNoAnswer = switch (parameter("onNoAnswer", "admit")) {
            case "admit" -> true;
            case "reject" -> false;
            default -> throw new ServletException("onNoAnswer is admit or reject");
        };
    }

    @Override
    protected void doFilter(HttpServletRequest request, HttpServletResponse response, FilterChain chain)
            throws IOException, ServletException {
        var retryAfter = SAFE.contains(request.getMethod()) ? null : rejected();
        if (retryAfter == null) {
            chain.doFilter(request, response);
            return;
        }
        response.setStatus(HttpServletResponse.SC_SERVICE_UNAVAILABLE);
        response.setHeader("Retry-After", retryAfter);
        response.setHeader("Cache-Control", "no-store");
        response.setContentType("application/problem+json");
        response.getWriter().printf(
            "{\"title\":\"Service Unavailable\",\"status\":503,\"detail\":\"Try again in %s s.\"}", retryAfter);
    }

    /** When to come back, in seconds; null: the request may go on. */
    private String rejected() {
        try {
            var answer = client.send(question, HttpResponse.BodyHandlers.discarding());
            if (answer.headers().firstValue("X-Breaker").isPresent()) { // else somebody else, or no such breaker
                return answer.statusCode() == 200 ? null : answer.headers().firstValue("Retry-After").orElse("1");
            }
        } catch (InterruptedException stopping) {
            Thread.currentThread().interrupt();
        } catch (IOException refusedOrLate) {
            // nobody answers
        }
        return onNoAnswer ? null : "1";
    }

    private String parameter(String name, String otherwise) {
        var given = getInitParameter(name);
        return given == null ? otherwise : given;
    }
}
